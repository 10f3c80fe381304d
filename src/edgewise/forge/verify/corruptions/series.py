"""What happens to sensors: drop-out, drift, spikes, clipping, jitter. Series are floats `[channels, time]`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.verify.corruptions.constants import SEVERITIES

Series = NDArray[np.float64]

LOST = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Share of the time without readings; the last one is held."""
DRIFT = (0.25, 0.5, 1.0, 2.0, 3.0)
"""Offset at the end, in standard deviations of the channel."""
SPIKES = (0.002, 0.005, 0.01, 0.02, 0.05)
"""Share of readings with a spike of `SPIKE_HEIGHT` standard deviations."""
SPIKE_HEIGHT = 6.0
CLIPPED = (3.0, 2.5, 2.0, 1.5, 1.0)
"""Largest distance from the mean, in standard deviations."""
JITTER = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Standard deviation of the sampling instants, in samples."""
_RUN = 0.02
"""Mean length of one gap as a share of the series."""

CONDITIONS: dict[str, tuple[int, ...]] = dict.fromkeys(("dropout", "drift", "spikes", "clipping", "jitter"), SEVERITIES)
QUICK = tuple(CONDITIONS)
FRAMES: dict[str, tuple[int, ...]] = {"dropout": SEVERITIES}
"""What is also meaningful for features over time: lost frames."""


def corrupt(x: Series, name: str, severity: int, *, generator: np.random.Generator) -> Series:
    """Return the series under one condition, of the same shape."""
    at = severity - 1
    mean, spread = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    match name:
        case "dropout":
            return dropout(x, LOST[at], generator=generator)
        case "drift":
            way = generator.choice([-1.0, 1.0], size=(len(x), 1))
            return np.asarray(x + way * DRIFT[at] * spread * np.linspace(0, 1, x.shape[1]))
        case "spikes":
            hit = generator.random(x.shape) < SPIKES[at]
            return np.asarray(x + hit * generator.choice([-1.0, 1.0], size=x.shape) * SPIKE_HEIGHT * spread)
        case "clipping":
            return np.clip(x, mean - CLIPPED[at] * spread, mean + CLIPPED[at] * spread)
        case _:
            return jitter(x, JITTER[at], generator=generator)


def dropout(x: Series, share: float, *, generator: np.random.Generator) -> Series:
    """Hold the last reading of all channels over random gaps that fill about `share` of the time."""
    length = x.shape[1]
    run = max(round(_RUN * length), 1)
    source = np.arange(length)
    for start in generator.permutation(length):
        gone = np.count_nonzero(source != np.arange(length))
        if gone >= share * (length - 1):
            break
        source[max(start, 1) : start + run] = -1
        np.maximum.accumulate(source, out=source)
    return x[:, source]


def jitter(x: Series, deviation: float, *, generator: np.random.Generator) -> Series:
    """Read every channel at instants that are off by normal noise of `deviation` samples, linearly interpolated."""
    instants = np.arange(x.shape[1])
    moved = instants + generator.normal(scale=deviation, size=x.shape[1])
    return np.stack([np.interp(moved, instants, channel) for channel in x])
