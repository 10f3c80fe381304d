"""When a stream of scores has left its reference: windows against cut-offs, and the Page-Hinkley test."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
SMALLEST_SHARE = 1e-4
"""Stands for an empty bin, whose logarithm would be infinite."""
_STEEPEST = 50.0
"""Rates beyond this, per standard deviation, are of scores that never go that way."""


def shares_of(values: DoubleArray, edges: DoubleArray) -> DoubleArray:
    """Return the share of `values` in each of `len(edges) + 1` bins; a value at an edge is in the upper one."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=edges.size + 1)
    return counts / values.size


def stability(found: DoubleArray, expected: DoubleArray) -> DoubleArray:
    """Return the population stability index, sum (p - q) ln(p / q), over the last axis (Siddiqi 2006, chapter 10)."""
    p, q = np.maximum(found, SMALLEST_SHARE), np.maximum(expected, SMALLEST_SHARE)
    return np.asarray(np.sum((p - q) * np.log(p / q), axis=-1))


def largest_gap(found: DoubleArray, expected: DoubleArray) -> DoubleArray:
    """Return the Kolmogorov-Smirnov distance at the edges: the largest gap of cumulative shares, over the last axis."""
    return np.asarray(np.max(np.abs(np.cumsum(found - expected, axis=-1)), axis=-1))


def rate(values: DoubleArray, allowance: float) -> float:
    """Return Lundberg's r > 0 with mean(exp(r (x - mean - allowance))) = 1 over `values`, by bisection.

    A cumulative sum of x - mean - allowance that starts anew at 0 is then above h at a given place with at most
    exp(-r h) (Wald's inequality; Siegmund, "Sequential Analysis", 1985, section 2.6). Raises ValueError unless the
    allowance is above 0.
    """
    if not allowance > 0:
        raise ValueError("allowance must be above 0")
    steps = values - values.mean() - allowance
    spread = float(values.std())
    if spread == 0.0 or steps.max() <= 0:
        return _STEEPEST / (spread or allowance)
    low, high = 0.0, _STEEPEST / spread

    def moment(r: float) -> float:
        # The logarithm of the mean, so that steep rates do not overflow.
        top = float((r * steps).max())
        return top + math.log(float(np.exp(r * steps - top).mean()))

    if moment(high) <= 0:
        return high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if moment(middle) <= 0 else (low, middle)
    return low


def height(rate_: float, *, inputs: float, chance: float) -> float:
    """Return the height that a Page-Hinkley sum passes within so many good inputs with at most this chance.

    It may start at each of `inputs` places, and from each one passes h with at most exp(-r h): inputs * exp(-r h) =
    chance. (Lorden, Ann. Math. Statist. 42, 1971, theorem 2, is the same for the mean time between false alarms.)
    """
    return math.log(inputs / chance) / rate_


def run_length(*, windows: float, exceeds: float, chance: float) -> int:
    """Return how many windows in a row must be beyond a cut-off, so that good ones are with at most this chance.

    A window is beyond it with at most `exceeds`; runs of k begin at `windows` places: windows * exceeds**k <= chance.
    """
    return max(1, math.ceil(math.log(windows / chance) / -math.log(exceeds)))


def walk(steps: DoubleArray, start: float) -> DoubleArray:
    """Return the sums S_t = max(0, S_(t-1) + step_t), S_0 = `start`: Page, Biometrika 41 (1954), section 2.3."""
    path = start + np.cumsum(steps)
    return np.asarray(path - np.minimum(np.minimum.accumulate(path), 0.0))
