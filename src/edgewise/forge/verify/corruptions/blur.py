"""Blur of ImageNet-C. Pictures are floats `[height, width, channels]` in 0..1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from edgewise.forge.verify.corruptions.noise import Picture

_SMALL_DISK = 8
"""Disks up to this radius are drawn on a grid of 17 x 17 and smoothed by 3 x 3, larger ones by 5 x 5."""


def defocus_blur(x: Picture, radius: float, smoothing: float) -> Picture:
    """Convolve with a disk, mirrored at the border: a lens out of focus."""
    kernel = disk(radius, smoothing)
    margin = len(kernel) // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return np.clip(signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1)), 0, 1)


def disk(radius: float, smoothing: float) -> NDArray[np.float64]:
    """Return the kernel `[n, n]`: a disk of sum 1, its edge smoothed by a Gaussian of 3 or 5 taps.

    As published, the smoothing mirrors at the kernel's border, so that the largest disks sum to a little more than 1.
    """
    reach = _SMALL_DISK if radius <= _SMALL_DISK else int(radius)
    taps = 1 if radius <= _SMALL_DISK else 2
    at = np.arange(-reach, reach + 1)
    full = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float64)
    full /= full.sum()
    gauss = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smoothing**2))
    for axis in (0, 1):
        full = ndimage.correlate1d(full, gauss / gauss.sum(), axis=axis, mode="mirror")
    return np.asarray(full)


def glass_blur(x: Picture, deviation: float, reach: int, rounds: int, *, generator: np.random.Generator) -> Picture:
    """Blur, let every pixel take the value of a random near one, row by row from the last, blur again.

    The paper says "shuffled"; the published code copies: its swap of two array views writes both with one value,
    and the published images were made with it.
    """
    soft = np.floor(_gaussian(x, deviation) * 255) / 255
    height, width = x.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    to = (rows[:, None] * width + columns).reshape(-1)
    source = list(range(height * width))
    for _ in range(rounds):
        shift = generator.integers(-reach, reach, size=(to.size, 2))
        # One after the other, because a value that was taken can be taken further.
        for here, there in zip(to.tolist(), (to + shift[:, 1] * width + shift[:, 0]).tolist(), strict=True):
            source[here] = source[there]
    shuffled = soft.reshape(height * width, -1)[source].reshape(x.shape)
    return np.clip(_gaussian(shuffled, deviation), 0, 1)


def motion_blur(x: Picture, radius: int, deviation: float, *, angle: float) -> Picture:
    """Average along a line of `2 radius + 1` pixels at `angle` degrees, weighted by half a Gaussian.

    The kernel is that of ImageMagick's MotionBlurImage, which the published code calls; borders repeat.
    """
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    rows = [-math.ceil(step * down - 0.5) for step in range(width)]
    columns = [-math.ceil(step * right - 0.5) for step in range(width)]
    padded = np.pad(x, ((width, width), (width, width), (0, 0)), mode="edge")
    blurred = np.zeros_like(x)
    for weight, row, column in zip(weights, rows, columns, strict=True):
        top, left = width - row, width - column
        blurred += weight * padded[top : top + x.shape[0], left : left + x.shape[1]]
    return np.clip(blurred, 0, 1)


def zoom_blur(x: Picture, zooms: int, step: float) -> Picture:
    """Average the picture with its centre at growing zoom: a fast approach."""
    total = sum((clipped_zoom(x, 1 + step * index) for index in range(zooms)), start=x)
    return np.clip(total / (zooms + 1), 0, 1)


def clipped_zoom(x: Picture, factor: float) -> Picture:
    """Return the centre of a picture `[height, width, ...]` zoomed linearly to the picture's size."""
    for axis in (0, 1):
        size = x.shape[axis]
        kept = math.ceil(size / factor)
        start, grown = (size - kept) // 2, round(kept * factor)
        trim = (grown - size) // 2
        # Linear interpolation that keeps both ends, at the places that are not trimmed off.
        at = np.arange(trim, trim + size) * ((kept - 1) / max(grown - 1, 1))
        low = np.clip(at.astype(np.int64), 0, max(kept - 2, 0))
        share = (at - low).reshape([-1 if each == axis else 1 for each in range(x.ndim)])
        near, far = x.take(start + low, axis=axis), x.take(start + np.minimum(low + 1, kept - 1), axis=axis)
        x = near + share * (far - near)
    return x


def _gaussian(x: Picture, deviation: float) -> Picture:
    return np.asarray(ndimage.gaussian_filter(x, (deviation, deviation, 0), mode="nearest"))
