"""Inputs that do not belong to the task, made from those that do."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.verify.corruptions.images import Pixels, corrupt
from edgewise.forge.verify.corruptions.modality import View

_GRID = 4

KINDS = ("noise", "shuffled", "statistics", "corrupted")
"""Uniform noise; the input in pieces that are shuffled; other statistics than any input; noise of severity 5."""


def outside(kind: str, view: View, feeds: Feeds, generator: np.random.Generator) -> Feeds:
    """Return the feeds with the input replaced by one that is none of the task's."""
    values = feeds[view.name]
    if view.space is not None:
        made = view.space.values(_picture(kind, view.space.pixels(values), generator), values)
    else:
        made = _readings(kind, values, generator)
    return {**feeds, view.name: made}


def _picture(kind: str, pixels: Pixels, generator: np.random.Generator) -> Pixels:
    match kind:
        case "noise":
            return generator.integers(0, 256, pixels.shape).astype(np.uint8)
        case "shuffled":
            return _shuffled_patches(pixels, generator)
        case "statistics":  # smooth clouds of colour, without edges
            small = generator.random((_GRID, _GRID, pixels.shape[2]))
            zoom = (pixels.shape[0] / _GRID, pixels.shape[1] / _GRID, 1)
            return np.clip(ndimage.zoom(small, zoom, order=1) * 255, 0, 255).astype(np.uint8)
        case _:
            return corrupt(pixels, "gaussian_noise", 5, generator=generator)


def _shuffled_patches(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Return the picture with its 4 x 4 patches in another order; what does not divide stays."""
    height, width = pixels.shape[0] // _GRID, pixels.shape[1] // _GRID
    made = pixels.copy()
    for to, source in enumerate(generator.permutation(_GRID * _GRID)):
        (row, column), (from_row, from_column) = divmod(to, _GRID), divmod(int(source), _GRID)
        made[row * height : (row + 1) * height, column * width : (column + 1) * width] = pixels[
            from_row * height : (from_row + 1) * height, from_column * width : (from_column + 1) * width
        ]
    return made


def _readings(kind: str, values: Array, generator: np.random.Generator) -> Array:
    low, high, spread = float(values.min()), float(values.max()), float(values.std())
    match kind:
        case "noise":
            made = generator.uniform(low, high, values.shape)
        case "shuffled":
            made = generator.permuted(values, axis=int(np.argmax(values.shape)))
        case "statistics":
            made = np.broadcast_to(generator.normal(float(values.mean()), 2 * spread, (1,) * values.ndim), values.shape)
        case _:
            made = values + generator.normal(scale=spread, size=values.shape)
    return np.ascontiguousarray(made).astype(values.dtype)
