"""A PNG of a model's own input, so that a server sees what the model saw (PNG specification, third edition)."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from edgewise.contracts.task import ImageOptions
from edgewise.runtimes.base import Array

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def pixels_of(tensor: Array, options: ImageOptions) -> Array | None:
    """Return uint8 pixels `[height, width, 1 or 3]` of a normalised image, or None where the tensor is none.

    The inverse of `(pixel / scale - mean) / std`, rounded and clipped: exact for what was an 8-bit image.
    """
    if tensor.ndim != 4 or tensor.shape[0] != 1 or tensor.dtype.kind not in "fiu":
        return None
    image = np.moveaxis(tensor[0], 0, -1) if options.layout == "nchw" else tensor[0]
    channels = image.shape[-1]
    if channels not in {1, 3} or any(len(each) not in {1, channels} for each in (options.mean, options.std)):
        return None
    with np.errstate(all="ignore"):
        values = (image.astype(np.float64) * np.array(options.std) + np.array(options.mean)) * options.scale
    if not np.isfinite(values).all():
        return None
    pixels: Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def png_of(pixels: Array) -> bytes:
    """Return the PNG file of uint8 pixels `[height, width, 1 or 3]`."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if channels == 1 else _RGB, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
