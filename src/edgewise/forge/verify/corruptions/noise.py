"""Noise of ImageNet-C. Pictures are floats `[height, width, channels]` in 0..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float64]


def gaussian_noise(x: Picture, deviation: float, *, generator: np.random.Generator) -> Picture:
    """Add normal noise to every value: poor light."""
    return np.clip(x + generator.normal(scale=deviation, size=x.shape), 0, 1)


def shot_noise(x: Picture, photons: float, *, generator: np.random.Generator) -> Picture:
    """Draw every value from a Poisson distribution of `photons` at full brightness."""
    return np.clip(generator.poisson(x * photons) / photons, 0, 1)


def impulse_noise(x: Picture, share: float, *, generator: np.random.Generator) -> Picture:
    """Set a share of all values to 0 or 1 with equal chance: bit errors."""
    hit = generator.random(x.shape) <= share
    white = generator.random(x.shape) <= 0.5
    return np.where(hit, white.astype(np.float64), x)
