"""Affine integer grids: x is stored as q = clip(round(x / scale) + zero_point).

Krishnamoorthi, arXiv 1806.08342, section 2 (uniform affine quantizer). Rounding is half to even and x is
*divided* by the scale, bit for bit as ONNX QuantizeLinear does it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.errors import DataError

FloatArray = NDArray[np.float32]
IntArray = NDArray[Any]

_UNSIGNED: tuple[type[np.unsignedinteger[Any]], ...] = (np.uint8, np.uint16)
_SIGNED: tuple[type[np.signedinteger[Any]], ...] = (np.int8, np.int16, np.int32)


class Grid(msgspec.Struct, frozen=True, eq=False):
    """A grid for a whole tensor (`scale` 0-d) or for each index of `axis` (`scale` [channels]).

    `zero_point` has the shape of `scale`; its type is the type values are stored in. Two grids are
    equal only when they are the same object, because arrays have no single truth value.
    """

    scale: FloatArray
    zero_point: IntArray
    axis: int | None = None
    narrow: bool = False
    """Leave out the lowest value, so that a signed range is symmetric: [-127, 127]."""
    bits: int | None = None
    """Bits in use where they are fewer than those of the type (4-bit weights stored as int8)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that values are stored in."""
        return self.zero_point.dtype

    @property
    def qmin(self) -> int:
        """Lowest stored value."""
        bits = self.bits or 8 * self.dtype.itemsize
        lowest = 0 if self.dtype.kind == "u" else -(1 << (bits - 1))
        return lowest + self.narrow

    @property
    def qmax(self) -> int:
        """Highest stored value."""
        bits = self.bits or 8 * self.dtype.itemsize
        return (1 << (bits if self.dtype.kind == "u" else bits - 1)) - 1

    @property
    def low(self) -> FloatArray:
        """Lowest value the grid can represent, of the shape of `scale`."""
        return np.asarray((self.qmin - self.zero_point.astype(np.float32)) * self.scale, dtype=np.float32)

    @property
    def high(self) -> FloatArray:
        """Highest value the grid can represent, of the shape of `scale`."""
        return np.asarray((self.qmax - self.zero_point.astype(np.float32)) * self.scale, dtype=np.float32)


def activation_grid(low: float, high: float, *, bits: int = 8, signed: bool = False, symmetric: bool = False) -> Grid:
    """Return the per-tensor grid of the range [low, high], widened to contain 0.

    0 is exactly representable because the zero point is an integer (arXiv 1712.05877, section 2.1):
    padding and Relu depend on it. A symmetric grid has its zero point in the middle. A range of
    no width gets scale 1. Raises DataError where the range is not finite or reversed.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise DataError(
            f"range [{low}, {high}]",
            required="two finite numbers, the lower first",
            next_step="look for NaN or infinity in the calibration data",
        )
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    dtype = _container(bits, signed=signed)
    qmin, qmax = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    middle = 0 if signed else 1 << (bits - 1)
    width = max(-low, high) / (qmax - middle) if symmetric else (high - low) / (qmax - qmin)
    # A scale below the normal float32 numbers loses its own precision and overflows 1 / scale.
    scale = np.float32(width) if width >= np.finfo(np.float32).tiny else np.float32(1.0)
    # Rounded with the float32 scale that is stored, half to even as everywhere.
    zero_point = middle if symmetric else min(max(round(qmin - low / float(scale)), qmin), qmax)
    return Grid(
        scale=np.array(scale, dtype=np.float32),
        zero_point=np.array(zero_point, dtype=dtype),
        bits=None if bits == 8 * dtype.itemsize else bits,
    )


def weight_grid(max_abs: ArrayLike, *, axis: int | None, bits: int = 8) -> Grid:
    """Return the symmetric, narrow grid of weights whose largest magnitude is `max_abs` (0-d or [channels]).

    A channel of zeros gets the largest scale of the others (1 where all are zero): its weights stay
    zero under any scale, but its bias is stored in units of scale_x * scale_w, which should neither
    overflow int32 nor be coarser than its neighbours'. Raises DataError where `max_abs` is not finite.
    """
    largest = np.asarray(max_abs, dtype=np.float32)
    if not np.isfinite(largest).all() or (largest < 0).any():
        raise DataError("weights are not finite", required="finite weights", next_step="check the trained model")
    dtype = _container(bits, signed=True)
    scale = np.asarray(largest / np.float32((1 << (bits - 1)) - 1), dtype=np.float32)
    usable = scale >= np.finfo(np.float32).tiny
    harmless = scale.max() if usable.any() else np.float32(1.0)
    return Grid(
        scale=np.asarray(np.where(usable, scale, harmless), dtype=np.float32),
        zero_point=np.zeros(scale.shape, dtype=dtype),
        axis=axis,
        narrow=True,
        bits=None if bits == 8 * dtype.itemsize else bits,
    )


def quantize(x: ArrayLike, grid: Grid) -> IntArray:
    """Return `x` on the grid, as integers of the grid's type and the shape of `x`."""
    zero_point = _aligned(grid.zero_point, grid, np.ndim(x))
    # Beyond 24 bits a float32 cannot hold every integer, so int32 (biases) goes through float64.
    dtype = np.float64 if grid.dtype.itemsize > 2 else np.float32
    steps = _steps(x, grid, dtype)
    steps += zero_point
    np.clip(steps, grid.qmin, grid.qmax, out=steps)
    return steps.astype(grid.dtype)


def dequantize(q: ArrayLike, grid: Grid) -> FloatArray:
    """Return (q - zero_point) * scale as float32 of the shape of `q`."""
    dtype = np.float64 if grid.dtype.itemsize > 2 else np.float32
    values = np.asarray(np.subtract(q, _aligned(grid.zero_point, grid, np.ndim(q)), dtype=dtype))
    values *= _aligned(grid.scale, grid, np.ndim(q))
    return values.astype(np.float32, copy=False)


def fake_quantize(x: ArrayLike, grid: Grid) -> FloatArray:
    """Return `dequantize(quantize(x))` without the integers in between."""
    zero_point = _aligned(grid.zero_point, grid, np.ndim(x)).astype(np.float64)
    dtype = np.float64 if grid.dtype.itemsize > 2 else np.float32
    steps = _steps(x, grid, dtype)
    np.clip(steps, (grid.qmin - zero_point).astype(dtype), (grid.qmax - zero_point).astype(dtype), out=steps)
    steps *= _aligned(grid.scale, grid, np.ndim(x))
    return steps.astype(np.float32, copy=False)


def _steps(x: ArrayLike, grid: Grid, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    # The quotient is rounded before the zero point is added: half to even depends on the order.
    with np.errstate(over="ignore"):  # far outside the range: saturates below
        steps = np.asarray(np.divide(x, _aligned(grid.scale, grid, np.ndim(x)), dtype=dtype))
    np.rint(steps, out=steps)
    return steps


def _aligned(values: NDArray[Any], grid: Grid, ndim: int) -> NDArray[Any]:
    """Give per-channel `values` the shape that broadcasts along `grid.axis` of an array of `ndim` axes."""
    if grid.axis is None or values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[grid.axis] = values.size
    return values.reshape(shape)


def _container(bits: int, *, signed: bool) -> np.dtype[Any]:
    for kind in _SIGNED if signed else _UNSIGNED:
        dtype: np.dtype[Any] = np.dtype(kind)
        if 2 <= bits <= 8 * dtype.itemsize:
            return dtype
    raise ValueError(f"no integer type for {bits} bits, {signed=}")
