"""From the histogram of an activation to the range (low, high) that its grid covers.

Every method returns low <= 0 <= high inside the span of the data and 0, because a grid represents 0
exactly and covers it anyway. Clipping a range trades few large errors for many small ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.recipe import RangeMethod
from edgewise.errors import DataError
from edgewise.numerics.histogram import Histogram
from edgewise.numerics.range_entropy import entropy_threshold
from edgewise.numerics.range_mse import grid_error, least_squares_range
from edgewise.numerics.weight_ranges import weight_mse, weight_mse_weighted

__all__ = [
    "choose",
    "entropy",
    "min_max",
    "mse",
    "octav",
    "percentile",
    "relative_noise",
    "weight_mse",
    "weight_mse_weighted",
]

_PERCENTILES = {RangeMethod.PERCENTILE_9999: 99.99, RangeMethod.PERCENTILE_99999: 99.999}
_STEPS = 100
_TOLERANCE = 1e-6


def choose(
    h: Histogram,
    method: RangeMethod,
    *,
    bits: int = 8,
    signed: bool = False,  # noqa: ARG001  both signs have the same number of levels, so the same best range
    symmetric: bool = False,
) -> tuple[float, float]:
    """Return the range of `h` by `method`; a symmetric one is [-c, c]. Raises DataError where `h` is empty."""
    if method in _PERCENTILES:
        low, high = percentile(h, _PERCENTILES[method])
    elif method is RangeMethod.ENTROPY:
        low, high = entropy(h, bits=bits, symmetric=symmetric)
    elif method is RangeMethod.MSE:
        low, high = mse(h, bits=bits, symmetric=symmetric)
    elif method is RangeMethod.OCTAV:
        low, high = octav(h, bits=bits, symmetric=symmetric)
    else:
        low, high = min_max(h)
    return (-max(-low, high), max(-low, high)) if symmetric else (low, high)


def min_max(h: Histogram) -> tuple[float, float]:
    """Return the exact extremes, widened to 0. Raises DataError where `h` is empty."""
    if h.count == 0:
        raise DataError(
            "an activation without calibration values",
            required="at least one sample that reaches it",
            next_step="calibrate with more samples",
        )
    return min(h.low, 0.0), max(h.high, 0.0)


def percentile(h: Histogram, p: float) -> tuple[float, float]:
    """Return the range that holds `p` percent of the values: (100 - p) / 2 percent lie beyond each end.

    The definition of onnxruntime's asymmetric percentile calibration; values are taken as evenly
    spread in a bin. Raises DataError where `h` is empty and ValueError where p is not in (0, 100].
    """
    if not 0 < p <= 100:
        raise ValueError(f"percentile {p}")
    low, high = min_max(h)
    tail = h.count * (100.0 - p) / 200.0
    cumulated = np.cumsum(h.counts)
    ends = []
    for target in (tail, h.count - tail):
        k = min(int(np.searchsorted(cumulated, target, side="left")), h.counts.size - 1)
        inside = (target - cumulated[k] + h.counts[k]) / max(h.counts[k], 1)
        ends.append(float((h.first + k + inside) * h.width))
    if tail == 0:
        return low, high
    return max(low, min(ends[0], 0.0)), min(high, max(ends[1], 0.0))


def relative_noise(h: Histogram, low: float, high: float, *, bits: int = 8) -> float:
    """Return sum (x - Q(x))^2 / sum x^2 of a range's grid; 0 where all values are."""
    centres = (h.edges[:-1] + h.edges[1:]) / 2
    signal = float((h.inexact_counts * centres**2).sum())
    ends = np.array([low]), np.array([high])
    noise = float(grid_error(h.inexact_counts, h.first, h.width, *ends, bits=bits)[0])
    return noise / signal if signal else 0.0


def entropy(h: Histogram, *, bits: int = 8, symmetric: bool = False) -> tuple[float, float]:
    """Return the range whose quantized distribution has the least KL divergence from the data's.

    One threshold c on |x|: the range is [-c, c] cut to the span of the data. Migacz, "8-bit inference
    with TensorRT", GTC 2017, as in onnxruntime's calibrator. One-sided data have all 2^bits levels on
    their side of 0, others and `symmetric` grids half of them. Raises DataError where `h` is empty.
    """
    low, high = min_max(h)
    levels = 1 << (bits - 1 if symmetric or low < 0 < high else bits)
    threshold = entropy_threshold(h.magnitudes, levels) * h.width
    return max(low, -threshold), min(high, threshold)


def mse(h: Histogram, *, bits: int = 8, symmetric: bool = False) -> tuple[float, float]:
    """Return the range c that minimises sum_b h_b (x_b - Q_c(x_b))^2, both ends searched.

    Never worse than `min_max` by that sum. Raises DataError where `h` is empty.
    """
    return least_squares_range(h, *min_max(h), bits=bits, symmetric=symmetric)


def octav(h: Histogram, *, bits: int = 8, symmetric: bool = False) -> tuple[float, float]:
    """Return the range by the Newton iteration of OCTAV: Sakr et al., arXiv 2206.06501, equation 6.

    With step D = (high - low) / 2^bits the expected error is D^2 / 12 where a value is inside, plus
    the squared excess of what is clipped. Its derivative in `high` vanishes where

        high = (E[x; x > high] + low a P[inside]) / (a P[inside] + P[x > high]),   a = 4^-bits / 12,

    and likewise for `low`; exact zeros have no error and are left out, as in the paper. With low = 0
    this is equation 6 for unsigned data; with low = -high (`symmetric`, on |x|) it is equation 6 for
    signed data, whose 4^-bits / 3 comes from the doubled width. Raises DataError where `h` is empty.
    """
    low, high = min_max(h)
    a = 4.0**-bits / 12
    counts = h.inexact_counts
    above = counts[-h.first :]
    below = counts[: -h.first][::-1]
    inexact = float(counts.sum())
    if inexact == 0:
        return low, high
    if symmetric:
        above, below = h.magnitudes, np.zeros(0)
        low, high, a = 0.0, max(-low, high), a * 4
    upper, lower = _Tail(above, h.width), _Tail(below, h.width)
    # Twice the mean magnitude of a side: inside the bulk, from where the iteration rises to the root.
    ends = np.array([min(2 * lower.mean, -low), min(2 * upper.mean, high)])
    for _ in range(_STEPS):
        before = ends.copy()
        for side, (tail, limit) in enumerate(((lower, -low), (upper, high))):
            if limit > 0:
                mass, first_moment = tail.beyond(float(ends[side]))
                inside = a * max(inexact - mass - (lower, upper)[1 - side].beyond(float(ends[1 - side]))[0], 0.0)
                if inside + mass > 0:
                    ends[side] = (first_moment - ends[1 - side] * inside) / (inside + mass)
                ends[side] = min(max(ends[side], h.width / 2), limit)
        if np.abs(ends - before).max() <= _TOLERANCE * ends.max():
            break
    return (-float(ends[1]) if symmetric else 0.0 - float(ends[0])), float(ends[1])


class _Tail:
    """Mass and first moment of the values beyond a point, on one side of 0."""

    def __init__(self, counts: NDArray[np.float64], width: float) -> None:
        edges = np.arange(counts.size + 1) * width
        moments = counts * (edges[:-1] + edges[1:]) / 2 if counts.size else counts
        self._edges = edges
        self._mass = np.append(counts[::-1].cumsum()[::-1], 0.0)
        self._moment = np.append(moments[::-1].cumsum()[::-1], 0.0)
        self.mean = float(self._moment[0] / self._mass[0]) if self._mass[0] else 0.0

    def beyond(self, point: float) -> tuple[float, float]:
        """Return (mass, first moment) of the magnitudes above `point`."""
        return float(np.interp(point, self._edges, self._mass)), float(np.interp(point, self._edges, self._moment))
