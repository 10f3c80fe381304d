"""How weights are put on their grid: to the nearest level, or so that errors cancel in the output."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError

FloatArray = NDArray[np.float32]
IntArray = NDArray[Any]


class Order(StrEnum):
    """In which order GPTQ rounds the columns: later ones make up for the errors of earlier ones."""

    STORED = "stored"
    ACTIVATION = "activation"
    """Largest diagonal of the Hessian first ("act-order" of the authors' code)."""


def nearest(
    w: FloatArray, scale: FloatArray, *, bits: int = 8, zero_point: IntArray | None = None, group: int = 0
) -> IntArray:
    """Return `w` [rows, cols] on the nearest level, as integers of the same shape.

    `scale` is [rows], or [rows, ceil(cols / group)] with one scale for each `group` columns. Without
    `zero_point` (of the shape of `scale`) levels are int8 in +-(2^(bits-1) - 1), else uint8 in 0 .. 2^bits - 1.
    """
    levels = _Levels.of(scale, zero_point, bits=bits, cols=w.shape[1], group=group)
    values = np.empty(w.shape, dtype=levels.dtype)
    for index in range(len(levels.scale)):
        part = slice(index * levels.group, (index + 1) * levels.group)
        zero = np.float32(0) if levels.zero_point is None else levels.zero_point[index, :, None]
        steps = np.divide(w[:, part], levels.scale[index, :, None], dtype=np.float32)
        np.rint(steps, out=steps)
        steps += zero
        values[:, part] = np.clip(steps, levels.low, levels.high, out=steps)
    return values


def gptq(  # noqa: PLR0913  what one layer is rounded with; all but three have a default
    w: FloatArray,
    hessian: NDArray[np.floating[Any]],
    scale: FloatArray,
    *,
    bits: int = 8,
    damping: float = 0.01,
    block: int = 128,
    order: Order = Order.STORED,
    zero_point: IntArray | None = None,
    group: int = 0,
) -> IntArray:
    """Return `w` [rows, cols] as integers, rounded to minimise tr((w - Q) H (w - Q)^T) column by column.

    Frantar et al., arXiv 2210.17323, algorithm 1; `hessian` is H = X X^T [cols, cols] of the layer's
    inputs (any factor cancels). The algorithm as printed updates the columns ahead with the Cholesky
    factor of H^-1. Here the same numbers come from H itself, without an inverse: with H = R R^T, R
    upper triangular, (w - Q) H (w - Q)^T = ||(w - Q) R||^2, and component j of (w - Q) R depends on
    columns up to j alone, so column j is rounded from

        w_j + sum_{i<j} (w - Q)_i R_ij / R_jj

    (Chen et al., arXiv 2507.18553: GPTQ is Babai's nearest plane algorithm). `block` columns share
    one matrix product (the paper's lazy batch-updates). `damping` is lambda / mean diagonal.

    `scale`, `zero_point`, `group`, `bits` and the result are as for `nearest`, which is also the
    result where H is 0. A column whose input was always 0 is rounded to nearest. Raises DataError
    where H is not finite or not positive semidefinite.
    """
    if not np.isfinite(hessian).all():
        raise DataError("the Hessian of a layer is not finite", required="finite activations")
    if not hessian.any():
        return nearest(w, scale, bits=bits, zero_point=zero_point, group=group)
    cols = w.shape[1]
    diagonal = np.diagonal(hessian)
    sequence = np.argsort(-diagonal, kind="stable") if order is Order.ACTIVATION else np.arange(cols)
    factor = _upper_factor(np.asarray(hessian, dtype=np.float64)[np.ix_(sequence, sequence)], damping)
    ahead = (factor / np.diagonal(factor)).astype(np.float32)
    # Transposed, so that a column of w is contiguous.
    weights = np.ascontiguousarray(w.T[sequence], dtype=np.float32)
    values = _rounded(weights, ahead, _Levels.of(scale, zero_point, bits=bits, cols=cols, group=group), sequence, block)
    result = np.empty((w.shape[0], cols), dtype=values.dtype)
    result[:, sequence] = values.T
    return result


class _Levels(msgspec.Struct, frozen=True):
    """The grid of each column, transposed: `scale` and `zero_point` [groups, rows]."""

    scale: FloatArray
    zero_point: FloatArray | None
    group: int
    low: int
    high: int

    @classmethod
    def of(cls, scale: FloatArray, zero_point: IntArray | None, *, bits: int, cols: int, group: int) -> _Levels:
        """Check the shapes: one scale a row, or one for each `group` columns. Raises ValueError."""
        expected = (-(-cols // group),) if group else ()
        for each in (scale, zero_point):
            if each is not None and each.shape[1:] != expected:
                raise ValueError(f"grid of shape {each.shape} for {cols} columns in groups of {group}")
        half = (1 << (bits - 1)) - 1
        low, high = (-half, half) if zero_point is None else (0, (1 << bits) - 1)
        return cls(
            scale=_transposed(scale),
            zero_point=None if zero_point is None else _transposed(zero_point),
            group=group or cols,
            low=low,
            high=high,
        )

    @property
    def dtype(self) -> type[np.int8 | np.uint8]:
        """Type of the levels."""
        return np.int8 if self.zero_point is None else np.uint8

    def put(self, values: FloatArray, column: int) -> tuple[FloatArray, FloatArray]:
        """Return (levels, what they stand for) of one column's `values` [rows]."""
        scale = self.scale[column // self.group]
        zero_point = np.float32(0) if self.zero_point is None else self.zero_point[column // self.group]
        steps = np.rint(values / scale)
        steps += zero_point
        np.clip(steps, self.low, self.high, out=steps)
        return steps, (steps - zero_point) * scale


def _rounded(
    weights: FloatArray, ahead: FloatArray, levels: _Levels, sequence: NDArray[np.intp], block: int
) -> IntArray:
    """Return the levels [cols, rows] of `weights` [cols, rows], whose row k is column `sequence[k]` of the layer."""
    values = np.empty(weights.shape, dtype=levels.dtype)
    error = np.empty_like(weights)
    for start in range(0, len(weights), block):
        stop = min(start + block, len(weights))
        target = weights[start:stop] + ahead[:start, start:stop].T @ error[:start]
        within = np.ascontiguousarray(ahead[start:stop, start:stop].T)
        for k in range(stop - start):
            row = start + k
            wanted = target[k] + within[k, :k] @ error[start:row]
            values[row], stored = levels.put(wanted, int(sequence[row]))
            np.subtract(weights[row], stored, out=error[row])
    return values


def _upper_factor(hessian: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """Return R, upper triangular, with R R^T = H + lambda I. Raises DataError where H has negative eigenvalues."""
    mean = float(np.trace(hessian)) / len(hessian)
    for strength in (damping, 10 * damping, 100 * damping):
        damped = hessian[::-1, ::-1].copy()
        np.fill_diagonal(damped, np.diagonal(damped) + strength * mean)
        try:
            # The lower factor of the reversed matrix is the upper one of the matrix, reversed.
            factor = np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            continue
        return np.asarray(factor[::-1, ::-1], dtype=np.float64)
    raise DataError(
        "the Hessian of a layer is not positive semidefinite",
        required="a sum of products of activations",
        next_step="calibrate with more samples",
    )


def _transposed(values: NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(values.reshape(len(values), -1).T, dtype=np.float32)
