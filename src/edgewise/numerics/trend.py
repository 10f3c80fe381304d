"""Whether something grows: a robust slope and its interval."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.contracts.evidence import Interval

DoubleArray = NDArray[np.float64]
_FEWEST = 25


def theil_sen(x: ArrayLike, y: ArrayLike) -> float:
    """Return the median of the slopes between all pairs of points: Sen, JASA 63 (1968), page 1379.

    Up to 29 % of the points may be anything. Pairs of equal x are left out. Raises ValueError without a pair.
    """
    return float(_slopes(np.asarray(x, np.float64), np.asarray(y, np.float64)[None])[0])


def slope_interval(
    x: ArrayLike,
    y: ArrayLike,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 500,
) -> Interval:
    """Return the interval of `theil_sen` from a moving-block bootstrap of the residuals.

    Blocks of sqrt(n) consecutive residuals (Kuensch, Ann. Statist. 17, 1989, section 2) keep what neighbouring
    points share, which single residuals would not. There are only m = n / sqrt(n) of them, so the bootstrap's
    standard error is taken times Student's quantile with m - 2 degrees of freedom: percentiles alone are too narrow.
    Raises ValueError without a pair, and for fewer than 25 points.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.size < _FEWEST:
        raise ValueError(f"{a.size} points, {_FEWEST} are needed")
    slope = float(_slopes(a, b[None])[0])
    fit = slope * a + float(np.median(b - slope * a))
    residuals = b - fit
    length = math.isqrt(a.size)
    blocks = -(-a.size // length)
    starts = generator.integers(a.size - length + 1, size=(resamples, blocks))
    taken = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, : a.size]
    effective = a.size / length
    # Resampling m values has (m - 1) / m of their variance.
    error = float(_slopes(a, fit + residuals[taken]).std(ddof=1)) * math.sqrt(effective / (effective - 1))
    half = _student(level, effective - 2) * error
    return Interval(low=slope - half, high=slope + half, level=level)


def _student(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t: Abramowitz and Stegun (1964), 26.7.5, good from 3 degrees on."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _slopes(x: DoubleArray, rows: DoubleArray) -> DoubleArray:
    """Return the Theil-Sen slope of every row."""
    first, second = np.triu_indices(x.size, 1)
    run = x[second] - x[first]
    apart = run != 0
    if not apart.any():
        raise ValueError(f"{x.size} points at one place have no slope")
    rise = rows[:, second[apart]] - rows[:, first[apart]]
    return np.asarray(np.median(rise / run[apart], axis=1))
