"""Streaming summaries of activations: a histogram whose range grows, and figures per channel.

Bins are aligned: bin i holds [i w, (i + 1) w) with w a power of two, and w is the smallest such width
with which the bins of 0 and of everything seen so far fit the limit. Doubling w merges the bins 2i and
2i + 1 exactly, so the counts depend on the values alone, not on their order or on how the stream was
cut: histograms form a commutative monoid under `merge`. 0 is always an edge, so taking |x| is exact too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.errors import DataError

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

# Values are binned in pieces that stay in the second-level cache.
_PIECE = 1 << 15
# Below 2^-126 the reciprocal of the width is not a float32.
_LOWEST_EXPONENT = -126
_LARGEST = float(np.finfo(np.float32).max)
# Beyond this magnitude the sum of squares of one piece could overflow float32.
_SAFE_MAGNITUDE = 2.0**50


class Histogram:
    """Counts of a stream of values, with exact extremes, in one pass.

    `bins` limits the number of bins; between half of them and all are in use. A histogram without
    values has `low` = inf and `high` = -inf.
    """

    def __init__(self, *, bins: int = 4096) -> None:
        """Start empty. Raises ValueError where `bins` is not a power of two of at least 2."""
        if bins < 2 or bins & (bins - 1):
            raise ValueError(f"bins = {bins} is not a power of two")
        self._bins = bins
        self._exponent = _LOWEST_EXPONENT
        self._first = 0
        self._counts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self.low = math.inf
        self.high = -math.inf
        self.count = 0
        """How many values were counted."""
        self.zeros = 0
        """How many of them are exactly 0: no grid errs on those."""
        self.total = 0.0
        """Sum of the values."""
        self.squares = 0.0
        """Sum of their squares."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Counts [n]."""
        return self._counts

    @property
    def edges(self) -> DoubleArray:
        """Edges [n + 1] of the bins, 0 among them."""
        return np.asarray((self._first + np.arange(self._counts.size + 1)) * self.width, dtype=np.float64)

    @property
    def width(self) -> float:
        """Width of every bin, a power of two."""
        return float(2.0**self._exponent)

    @property
    def first(self) -> int:
        """Index of the first bin: `edges[k]` is (first + k) * width, and -first of the bins lie below 0."""
        return self._first

    @property
    def mean(self) -> float:
        """Mean of the values; nan while there are none."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """Variance of the values; nan while there are none."""
        return max(self.squares / self.count - self.mean**2, 0.0) if self.count else math.nan

    @property
    def inexact_counts(self) -> DoubleArray:
        """Counts [n] without the exact zeros: the mass that a grid can err on."""
        counts = self._counts.astype(np.float64)
        counts[-self._first] -= self.zeros
        return counts

    @property
    def magnitudes(self) -> DoubleArray:
        """Histogram [m] of |x| without the exact zeros: entry k counts [k w, (k + 1) w)."""
        counts = self.inexact_counts
        below, above = counts[: -self._first][::-1], counts[-self._first :]
        folded = np.zeros(max(below.size, above.size))
        folded[: below.size] += below
        folded[: above.size] += above
        return folded

    def update(self, x: ArrayLike, *, extremes: tuple[float, float] | None = None) -> None:
        """Count the values of `x`, of any shape.

        Where `x` is a sample of a larger array, `extremes` are the lowest and highest value of all
        of it. Raises DataError where a value is not finite; nothing is counted then.
        """
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is refused below
            values = np.asarray(x, dtype=np.float32).reshape(-1)
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if extremes is not None:
            low, high = float(np.minimum(low, extremes[0])), float(np.maximum(high, extremes[1]))  # NaN stays NaN
        if math.isnan(low + high) or max(-low, high) > _LARGEST:
            raise DataError(
                f"values are not finite ({low} .. {high})",
                required="finite numbers",
                next_step="look for NaN, infinity or wrongly scaled values in the calibration data",
            )
        self._grow(low, high)
        self.count += values.size
        self._count(values, exactly=max(-low, high) > _SAFE_MAGNITUDE)

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of the values of both. Raises ValueError where their limits differ."""
        if self._bins != other._bins:
            raise ValueError(f"histograms of {self._bins} and {other._bins} bins")
        merged = Histogram(bins=self._bins)
        merged._absorb(self)
        merged._absorb(other)
        return merged

    def _absorb(self, other: Histogram) -> None:
        if other.count == 0:
            return
        self._grow(other.low, other.high)
        self._counts += _rebinned(
            other._counts, other._first, self._exponent - other._exponent, self._first, self._counts.size
        )
        self.count += other.count
        self.zeros += other.zeros
        self.total += other.total
        self.squares += other.squares

    def _grow(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        exponent, first, size = _bins_of(min(self.low, 0.0), max(self.high, 0.0), self._bins)
        if (exponent, first, size) != (self._exponent, self._first, self._counts.size):
            self._counts = _rebinned(self._counts, self._first, exponent - self._exponent, first, size)
            self._exponent, self._first = exponent, first

    def _count(self, values: FloatArray, *, exactly: bool) -> None:
        inverse, first, size = np.float32(2.0**-self._exponent), np.float32(self._first), self._counts.size
        scaled = np.empty(min(_PIECE, values.size), dtype=np.float32)
        index = np.empty(scaled.size, dtype=np.intp)
        for start in range(0, values.size, _PIECE):
            piece = values[start : start + _PIECE]
            part, where = scaled[: piece.size], index[: piece.size]
            # Exact: a product with a power of two, then integers below 2^24. Rounding down comes
            # before the shift, which in float32 could carry a value over an edge.
            np.multiply(piece, inverse, out=part)
            np.floor(part, out=part)
            part -= first
            where[...] = part
            self._counts += np.bincount(where, minlength=size)
            self.zeros += piece.size - int(np.count_nonzero(piece != 0))
            wide = piece.astype(np.float64) if exactly else piece
            self.total += float(wide.sum())
            self.squares += float(np.dot(wide, wide))


class ChannelStats:
    """Extremes and moments of a stream of arrays, for each index of one axis.

    The axis must have the same length in every array. All figures are [channels].
    """

    def __init__(self, *, axis: int) -> None:
        """Start empty, for the channels of `axis`."""
        self.axis = axis
        self.count = 0
        """How many values each channel has had."""
        self.low: FloatArray = np.empty(0, dtype=np.float32)
        self.high: FloatArray = np.empty(0, dtype=np.float32)
        self._total: DoubleArray = np.empty(0)
        self._squares: DoubleArray = np.empty(0)

    @property
    def mean(self) -> DoubleArray:
        """Mean of each channel [channels]."""
        return self._total / max(self.count, 1)

    @property
    def mean_square(self) -> DoubleArray:
        """Mean of the squares of each channel [channels]."""
        return self._squares / max(self.count, 1)

    @property
    def max_abs(self) -> FloatArray:
        """Largest magnitude of each channel [channels]."""
        return np.maximum(-self.low, self.high)

    def update(self, x: NDArray[Any]) -> None:
        """Add one array. Raises DataError where a value is not finite or the channels differ in number."""
        values = np.asarray(x, dtype=np.float32)
        if values.size == 0:
            return
        axis = self.axis % values.ndim
        channels = values.shape[axis]
        if axis == values.ndim - 1:
            figures = _of_columns(values.reshape(-1, channels))
        else:
            figures = _of_planes(values.reshape(math.prod(values.shape[:axis]), channels, -1))
        self._add(values.size // channels, *figures)

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Return the figures of both streams."""
        merged = ChannelStats(axis=self.axis)
        merged._absorb(self)
        merged._absorb(other)
        return merged

    def _absorb(self, other: ChannelStats) -> None:
        if other.count:
            self._add(other.count, other.low, other.high, other._total, other._squares)

    def _add(self, count: int, low: FloatArray, high: FloatArray, total: DoubleArray, squares: DoubleArray) -> None:
        if not np.isfinite(squares).all():
            raise DataError("a channel is not finite", required="finite activations below 1e18 in magnitude")
        if self.count == 0:
            self.low, self.high, self._total, self._squares = low, high, total, squares
        elif low.shape != self.low.shape:
            raise DataError(f"{low.size} channels after arrays of {self.low.size}", required="one number of channels")
        else:
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
            self._total, self._squares = self._total + total, self._squares + squares
        self.count += count


def _bins_of(low: float, high: float, limit: int) -> tuple[int, int, int]:
    """Return (exponent of the width, index of the first bin, number of bins) that cover [low, high] with 0."""
    # With R in [2^(k-1), 2^k) and `limit` = 2^m a width of 2^(k-1-m) never fits, so begin one above.
    exponent = max(math.frexp(high - low)[1] - (limit.bit_length() - 1), _LOWEST_EXPONENT)
    while True:
        width = 2.0**exponent
        first = math.floor(low / width)
        size = math.floor(high / width) - first + 1
        if size <= limit:
            return exponent, first, size
        exponent += 1


def _rebinned(counts: NDArray[np.int64], first: int, shift: int, new_first: int, size: int) -> NDArray[np.int64]:
    """Move `counts`, whose bins start at index `first`, to bins 2^shift times as wide that start at `new_first`."""
    # An index has far fewer than 62 bits, so a longer shift gives the same 0 or -1.
    index = np.arange(first, first + counts.size, dtype=np.int64) >> min(shift, 62)
    used = counts > 0
    return np.bincount(index[used] - new_first, weights=counts[used], minlength=size).astype(np.int64)


def _of_columns(rows: FloatArray) -> tuple[FloatArray, FloatArray, DoubleArray, DoubleArray]:
    """Return (low, high, sum, sum of squares) of the columns of `rows` [n, channels]."""
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    # Short runs in float32, their sums in float64: as fast as float32 and far more exact.
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        total += part.sum(axis=0)
        squares += np.einsum("rc,rc->c", part, part)
    return rows.min(axis=0), rows.max(axis=0), total, squares


def _of_planes(planes: FloatArray) -> tuple[FloatArray, FloatArray, DoubleArray, DoubleArray]:
    """Return (low, high, sum, sum of squares) of the channels of `planes` [n, channels, m]."""
    total = planes.sum(axis=2).sum(axis=0, dtype=np.float64)
    squares = np.einsum("ncm,ncm->nc", planes, planes).sum(axis=0, dtype=np.float64)
    return planes.min(axis=2).min(axis=0), planes.max(axis=2).max(axis=0), total, squares
