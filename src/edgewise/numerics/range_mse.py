"""The least-squares search behind `ranges.mse`.

First a scan with the usual model of the error (step^2 / 12 inside, the squared excess outside),
which prefix sums make cheap for thousands of ranges; then the exact error of a few dozen around the
best, on the very grid that `activation_grid` would make.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.numerics.histogram import Histogram

DoubleArray = NDArray[np.float64]

# Ends tried by the scan on each side of 0, closer together near 0: a factor of about 1.09 apart.
_LADDER = 96
# Factors around the scan's best that are judged exactly, for two ends and for one.
_PAIR_FACTORS = np.linspace(0.88, 1.12, 7)
_SINGLE_FACTORS = np.linspace(0.88, 1.12, 33)
# Ranges judged at once, so that the work arrays stay in the second-level cache.
_CANDIDATES_AT_ONCE = 8


def least_squares_range(h: Histogram, low: float, high: float, *, bits: int, symmetric: bool) -> tuple[float, float]:
    """Return the range within [low, high] (the extremes, widened to 0) of the least squared error."""
    counts, first, floor, limit = h.inexact_counts, h.first, low, high
    if symmetric:
        limit = max(-low, high)
        ends = _ladder(limit, h.width)
        scanned = ends[np.argmin(_tail_error(h.magnitudes, h.width, ends) + _inside(2 * ends, counts, bits))]
        highs = np.append(np.minimum(scanned * _SINGLE_FACTORS, limit), limit)
        lows = -highs
    else:
        below, above = _ladder(-low, h.width), _ladder(high, h.width)
        error = (
            _tail_error(counts[: -h.first][::-1], h.width, below)[:, None]
            + _tail_error(counts[-h.first :], h.width, above)[None, :]
            + _inside(below[:, None] + above[None, :], counts, bits)
        )
        row, column = np.unravel_index(int(np.argmin(error)), error.shape)
        factors = _PAIR_FACTORS if low < 0 < high else _SINGLE_FACTORS
        lower = -below[row] * (factors if low < 0 else np.ones(1))
        upper = above[column] * (factors if high > 0 else np.ones(1))
        lows = np.append(np.maximum(np.repeat(lower, upper.size), floor), floor)
        highs = np.append(np.minimum(np.tile(upper, lower.size), limit), limit)
    if not counts.any():
        return (-limit, limit) if symmetric else (low, high)
    best = int(np.argmin(grid_error(counts, first, h.width, lows, highs, bits=bits, symmetric=symmetric)))
    return float(lows[best]), float(highs[best])


def grid_error(
    counts: DoubleArray,
    first: int,
    width: float,
    lows: DoubleArray,
    highs: DoubleArray,
    *,
    bits: int,
    symmetric: bool = False,
) -> DoubleArray:
    """Return sum_b h_b (x - Q(x))^2 [candidates], values evenly spread in each bin, for each range.

    Bin k covers [(first + k) width, (first + k + 1) width). In units of the step the error of t is
    t - n with n the nearest level, so its squared integral from 0 is n / 12 + (t - n)^3 / 3, clipped
    levels included; what a bin contributes is the difference over its two edges.
    """
    levels = (1 << bits) - 1
    half = (1 << (bits - 1)) - 1
    steps = highs / half if symmetric else (highs - lows) / levels
    # Beyond this a range has no width: scale 1, as `activation_grid` has it.
    steps = np.where(steps >= np.finfo(np.float32).tiny, steps, 1.0)
    lowest = np.full(steps.shape, -half - 1.0) if symmetric else np.maximum(np.rint(lows / steps), -levels)
    highest = lowest + levels
    edges = (first + np.arange(counts.size + 1)) * width
    # sum_b h_b (F(e_{b+1}) - F(e_b)) = sum_e F(e) (h_{e-1} - h_e).
    weights = -np.diff(counts, prepend=0.0, append=0.0)
    errors: DoubleArray = np.empty(steps.size)
    for start in range(0, steps.size, _CANDIDATES_AT_ONCE):
        part = slice(start, start + _CANDIDATES_AT_ONCE)
        t = edges / steps[part, None]
        n = np.rint(t)
        np.clip(n, lowest[part, None], highest[part, None], out=n)
        t -= n
        np.multiply(t * t, t, out=t)
        n *= 0.25
        t += n
        np.matmul(t, weights, out=errors[part])
    return np.asarray(errors * steps**3 / (3 * width), dtype=np.float64)


def _ladder(limit: float, width: float) -> DoubleArray:
    """Return rising candidates in (0, limit], whole bins and `limit` itself; only 0 where `limit` is 0."""
    if limit <= 0:
        return np.zeros(1)
    whole = np.unique(np.geomspace(1, max(limit / width, 1), _LADDER).round()) * width
    return np.unique(np.append(np.minimum(whole, limit), limit))


def _inside(span: DoubleArray, counts: DoubleArray, bits: int) -> DoubleArray:
    """Return the rounding error of all of `counts` on grids that cover `span`: step^2 / 12 each."""
    return np.asarray((span / ((1 << bits) - 1)) ** 2 / 12 * counts.sum())


def _tail_error(counts: DoubleArray, width: float, ends: DoubleArray) -> DoubleArray:
    """Return sum of (x - end)^2 over the values beyond each of `ends` (bin k of one side starts at k width)."""
    if counts.size == 0:
        return np.zeros(ends.shape)
    centres = (np.arange(counts.size) + 0.5) * width
    beyond = np.minimum((ends / width).round().astype(np.intp), counts.size)
    s0, s1, s2 = (np.append(np.cumsum((counts * centres**k)[::-1])[::-1], 0.0)[beyond] for k in range(3))
    error: DoubleArray = np.maximum(s2 - 2 * ends * s1 + ends**2 * s0, 0.0)
    return error
