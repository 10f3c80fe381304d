"""Digital corruptions of ImageNet-C (extra `forge`: Pillow).

Pictures are floats `[height, width, channels]` in 0..1.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from edgewise.forge.verify.corruptions.noise import Picture
from edgewise.runtimes.base import require


def contrast(x: Picture, factor: float) -> Picture:
    """Bring every value closer to its channel's mean."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray(np.clip((x - mean) * factor + mean, 0, 1))


def elastic_transform(
    x: Picture, strength: float, smoothness: float, corner: float, *, generator: np.random.Generator
) -> Picture:
    """Move three points and the picture with them (an affine map), then shift every pixel a little, smoothly."""
    height, width = x.shape[:2]
    centre = np.array([height, width], np.float64) // 2
    size = min(height, width) // 3
    before = np.stack([centre + size, centre + np.array([size, -size]), centre - size])
    after = before + generator.uniform(-corner, corner, size=before.shape)
    # The published code reads these points as (x, y): the inverse map takes a place back to where it came from.
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back
    warped = _sampled(x, places[..., 1], places[..., 0], mode="mirror")
    across, down = (_displacement(x, strength, smoothness, generator=generator) for _ in range(2))
    return np.clip(_sampled(warped, rows + down, columns + across, mode="reflect"), 0, 1)


def pixelate(x: Picture, factor: float) -> Picture:
    """Shrink and enlarge with a box filter."""
    library = require("PIL.Image", extra="forge")
    image = as_image(x)
    small = image.resize((int(x.shape[1] * factor), int(x.shape[0] * factor)), library.Resampling.BOX)
    return as_picture(small.resize((x.shape[1], x.shape[0]), library.Resampling.BOX))


def jpeg_compression(x: Picture, quality: int) -> Picture:
    """Compress as JPEG."""
    return as_picture(jpeg_round_trip(as_image(x), quality=quality))


def jpeg_round_trip(image: Any, **options: Any) -> Any:
    """Return a Pillow image after writing it as JPEG with these options and reading it again."""
    library = require("PIL.Image", extra="forge")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return library.open(buffer, formats=("JPEG",))


def as_image(x: Picture) -> Any:
    """Return a Pillow image, grey or RGB, values cut to eight bits."""
    library = require("PIL.Image", extra="forge")
    pixels = as_bytes(x)
    return library.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def as_picture(image: Any) -> Picture:
    """Return the floats of a Pillow image."""
    pixels = np.asarray(image, np.float64) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels


def as_bytes(x: Picture) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return eight bits per value. Cut, not rounded, as in the published code; the offset undoes a division by 255."""
    return np.floor(x * 255 + 1e-6).astype(np.uint8)


def _displacement(x: Picture, strength: float, smoothness: float, *, generator: np.random.Generator) -> Picture:
    """Return smooth noise `[height, width]` in pixels; none where the strength is 0."""
    noise = generator.uniform(-1, 1, size=x.shape[:2])
    return np.asarray(ndimage.gaussian_filter(noise, smoothness, mode="reflect", truncate=3) * strength)


def _sampled(x: Picture, rows: Picture, columns: Picture, *, mode: Literal["mirror", "reflect"]) -> Picture:
    """Return the picture read at fractional places, linearly."""
    at = np.stack([rows, columns])
    parts = [ndimage.map_coordinates(x[..., channel], at, order=1, mode=mode) for channel in range(x.shape[2])]
    return np.stack(parts, axis=-1)
