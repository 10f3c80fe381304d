"""Weather of ImageNet-C. Pictures are floats `[height, width, channels]` in 0..1."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edgewise.forge.verify.corruptions.blur import clipped_zoom, motion_blur
from edgewise.forge.verify.corruptions.noise import Picture

TEXTURES = 6
_LUMA = np.array([0.299, 0.587, 0.114])
_MOST_NEEDLES = 60
_FROST_TINT = np.array([0.93, 0.97, 1.0])


def snow(x: Picture, constants: Sequence[float], *, generator: np.random.Generator) -> Picture:
    """Whiten the picture and add falling flakes, and the same flakes turned by half a circle.

    `constants`: mean and deviation of the flakes, zoom, threshold, radius and deviation of the fall, share kept.
    """
    mean, deviation, zoom, threshold, radius, spread, kept = constants
    flakes = clipped_zoom(generator.normal(loc=mean, scale=deviation, size=x.shape[:2])[..., None], zoom)
    flakes[flakes < threshold] = 0
    flakes = np.floor(np.clip(flakes, 0, 1) * 255) / 255
    flakes = motion_blur(flakes, int(radius), spread, angle=float(generator.uniform(-135, -45)))
    flakes = np.round(flakes * 255) / 255
    grey = x if x.shape[2] == 1 else (x @ _LUMA)[..., None]
    pale = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return np.clip(pale + flakes + np.rot90(flakes, k=2), 0, 1)


def frost(x: Picture, kept: float, weight: float, *, scale: float, generator: np.random.Generator) -> Picture:
    """Lay a random part of a random frost texture over the picture.

    The published textures are six photographs; these are drawn in code (`frost_texture`), so the weights agree
    with the publication and the crystals do not. `scale` is the texture's size beside that of ImageNet-C.
    """
    height, width = x.shape[:2]
    texture = frost_texture(int(generator.integers(TEXTURES)), 2 * max(height, width), scale)
    top = int(generator.integers(0, len(texture) - height))
    left = int(generator.integers(0, len(texture) - width))
    part = texture[top : top + height, left : left + width]
    if x.shape[2] == 1:
        part = (part @ _LUMA)[..., None]
    return np.clip(kept * x + weight * part, 0, 1)


@functools.lru_cache(maxsize=TEXTURES)
def frost_texture(number: int, side: int, scale: float) -> Picture:
    """Return texture `[side, side, 3]` in 0..1: needles of ice that branch off each other, over a pale veil.

    Needles are thin strokes in a few directions 60 degrees apart, as ice grows; the same number gives the same
    texture.
    """
    generator = np.random.default_rng((number, 1905))
    veil = ndimage.zoom(generator.random((9, 9)), side / 9, order=1)[:side, :side]
    first = float(generator.uniform(0, 60))
    ice = np.zeros((side, side))
    for turn in range(6):
        seeds = (generator.random((side, side)) < 0.004 / max(scale, 0.2)).astype(np.float64)
        length = max(round(scale * float(generator.uniform(18, _MOST_NEEDLES))), 2)
        strokes = motion_blur(seeds[..., None], length, length, angle=first + 60 * turn)[..., 0]
        ice = np.maximum(ice, strokes / max(float(strokes.max()), 1e-9))
    ice = ndimage.gaussian_filter(ice, 0.7) ** 0.6
    depth = np.clip(0.25 + 0.45 * veil + 1.2 * ice * (0.4 + 0.6 * veil) - 0.25, 0, 1)
    return np.asarray(depth[..., None] * _FROST_TINT)


def fog(x: Picture, thickness: float, decay: float, *, generator: np.random.Generator) -> Picture:
    """Add a plasma fractal to all channels and bring the brightest value back to where it was."""
    side = 1 << (max(x.shape[:2]) - 1).bit_length()
    brightest = float(x.max())
    clouds = plasma_fractal(side, decay, generator=generator)[: x.shape[0], : x.shape[1], None]
    return np.clip((x + thickness * clouds) * brightest / (brightest + thickness), 0, 1)


def plasma_fractal(side: int, decay: float, *, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return a height map `[side, side]` in 0..1 by the diamond-square algorithm; `side` is a power of two.

    The map wraps around. Each halving of the step divides the randomness by `decay`.
    """
    heights = np.zeros((side, side))
    step, rough = side, 100.0

    def wobbled(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + rough * generator.uniform(-rough, rough, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = wobbled(pairs + np.roll(pairs, -1, axis=1))
        centres = heights[half::step, half::step]
        across = centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = wobbled(across + (corners + np.roll(corners, -1, axis=1)))
        along = centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = wobbled(along + (corners + np.roll(corners, -1, axis=0)))
        step, rough = half, rough / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


def brightness(x: Picture, more: float) -> Picture:
    """Add to the value of HSV (the largest channel), hue and saturation kept."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.clip(value + more, 0, 1)
    return np.asarray(np.where(value > 0, x * (brighter / np.where(value > 0, value, 1)), brighter))
