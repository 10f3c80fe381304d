"""The weight layout of onnxruntime's MatMulNBits (domain com.microsoft, ContribOperators.md).

A weight [K, N] is stored by output column: B [N, blocks, block * bits / 8] with blocks = ceil(K / block),
4-bit values two in a byte, the first in the low half. Each block has a scale and a zero point; a
zero point that is not given is 2^(bits - 1). The end of the last block, past K, holds zero points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


def pack_nbits(
    w: FloatArray, bits: int, block: int, *, asymmetric: bool
) -> tuple[ByteArray, FloatArray, ByteArray | None]:
    """Round `w` [K, N] to nearest and return (B, scales, zero points) as MatMulNBits takes them.

    B is [N, blocks, block * bits / 8], scales [N * blocks], zero points [N * ceil(blocks * bits / 8)],
    or None where not `asymmetric`.
    """
    rows = np.asarray(w, dtype=np.float32).T
    scales, zero_points = block_grid(rows, bits, block, asymmetric=asymmetric)
    levels = _blocks(rows, block) / scales[..., None]
    np.rint(levels, out=levels)
    levels += zero_points[..., None]
    np.clip(levels, 0, (1 << bits) - 1, out=levels)
    return pack_levels(levels.reshape(len(rows), -1)[:, : rows.shape[1]], scales, zero_points, bits, block)


def block_grid(rows: FloatArray, bits: int, block: int, *, asymmetric: bool) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Return (scale, zero point), each [N, blocks], for each `block` columns of `rows` [N, K].

    Asymmetric: the range of the block, widened to 0. Symmetric: the zero point is 2^(bits - 1) and
    the value of largest magnitude lies on level 0, the end that reaches one step further; the scale
    takes its sign, so it may be negative. A block of zeros has scale 1.
    """
    values = _blocks(np.asarray(rows, dtype=np.float32), block)
    low, high = np.minimum(values.min(axis=2), 0), np.maximum(values.max(axis=2), 0)
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    scale = (high - low) / top if asymmetric else np.where(-low > high, low, high) / -middle
    scale = np.where(np.abs(scale) >= np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    if not asymmetric:
        return scale, np.full(scale.shape, middle, dtype=np.uint8)
    return scale, np.clip(np.rint(-low / scale), 0, top).astype(np.uint8)


def pack_levels(
    levels: NDArray[Any], scales: FloatArray, zero_points: NDArray[np.uint8], bits: int, block: int
) -> tuple[ByteArray, FloatArray, ByteArray | None]:
    """Pack `levels` [N, K] in 0 .. 2^bits - 1, say of `rounding.gptq`, with the grid of `block_grid`.

    Returns what `pack_nbits` does; zero points are None where all are 2^(bits - 1).
    Raises ValueError where bits are neither 4 nor 8 or `block` is not a power of two of at least 16.
    """
    if bits not in (4, 8) or block < 16 or block & (block - 1):
        raise ValueError(f"MatMulNBits with {bits} bits in blocks of {block}")
    rows, blocks = scales.shape
    padded = np.repeat(zero_points, block, axis=1)
    padded[:, : levels.shape[1]] = levels
    packed = _to_bytes(padded, bits).reshape(rows, blocks, block * bits // 8)
    omitted = bool((zero_points == 1 << (bits - 1)).all())
    return packed, scales.reshape(-1), None if omitted else _to_bytes(zero_points, bits).reshape(-1)


def unpack_nbits(
    packed: ByteArray, scales: FloatArray, zero_points: ByteArray | None, *, k: int, bits: int, block: int
) -> FloatArray:
    """Return the weight [K, N] that the packed one stands for."""
    rows, blocks, _ = packed.shape
    levels = _from_bytes(packed.reshape(rows, -1), bits, blocks * block).reshape(rows, blocks, block)
    if zero_points is None:
        zeros = np.full((rows, blocks), 1 << (bits - 1), dtype=np.uint8)
    else:
        zeros = _from_bytes(zero_points.reshape(rows, -1), bits, blocks)
    values = (levels.astype(np.float32) - zeros[..., None]) * scales.reshape(rows, blocks, 1)
    return np.ascontiguousarray(values.reshape(rows, -1)[:, :k].T, dtype=np.float32)


def _blocks(rows: FloatArray, block: int) -> FloatArray:
    """Return `rows` [N, K] as [N, blocks, block], padded with 0."""
    count = -(-rows.shape[1] // block)
    padded = np.zeros((len(rows), count * block), dtype=np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(len(rows), count, block)


def _to_bytes(values: NDArray[np.uint8], bits: int) -> ByteArray:
    """Return the rows of `values` [N, n] as bytes [N, ceil(n bits / 8)]."""
    if bits == 8:
        return np.ascontiguousarray(values)
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    return np.asarray(values[:, 0::2] | values[:, 1::2] << 4, dtype=np.uint8)


def _from_bytes(packed: ByteArray, bits: int, count: int) -> NDArray[np.uint8]:
    """Undo `_to_bytes`, for `count` values a row."""
    if bits == 8:
        return packed[:, :count]
    return np.stack((packed & 15, packed >> 4), axis=2).reshape(len(packed), -1)[:, :count]
