"""Tests of counts: whether a share differs between groups, and corrections for asking that of many groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

_PERMUTATIONS_AT_ONCE = 1 << 22


class ChiSquared(msgspec.Struct, frozen=True, kw_only=True):
    """Pearson's test of a table of counts; `least` is the smallest expected count."""

    statistic: float
    freedom: int
    p: float
    least: float


def chi_squared(table: ArrayLike) -> ChiSquared:
    """Return Pearson's chi-squared test of independence of a table of counts, without a continuity correction.

    Rows and columns without counts are left out. Its p is an approximation that holds where expected counts are at
    least 5 (Cochran 1954); below, use `permutation_p`. Raises ValueError for counts that are negative.
    """
    counts = np.asarray(table, np.float64)
    if counts.ndim != 2 or (counts < 0).any():
        raise ValueError("a table of counts has two axes and nothing negative")
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    if min(counts.shape, default=0) < 2:
        return ChiSquared(statistic=0.0, freedom=0, p=1.0, least=float(counts.min(initial=0.0)))
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return ChiSquared(
        statistic=statistic, freedom=freedom, p=chi_squared_tail(statistic, freedom), least=float(expected.min())
    )


def chi_squared_tail(statistic: float, freedom: int) -> float:
    """Return P(X > statistic) of the chi-squared distribution with a whole number of degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.4.4 and 26.4.5. Raises ValueError for no degrees of freedom.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom")
    half = statistic / 2
    if half <= 0:  # also of a statistic so small that its half is 0
        return 1.0
    if freedom % 2 == 0:
        terms = [k * math.log(half) - half - math.lgamma(k + 1) for k in range(freedom // 2)]
        return min(math.fsum(math.exp(each) for each in terms), 1.0)
    terms = [(k - 0.5) * math.log(half) - half - math.lgamma(k + 0.5) for k in range(1, (freedom - 1) // 2 + 1)]
    return min(math.erfc(math.sqrt(half)) + math.fsum(math.exp(each) for each in terms), 1.0)


def permutation_p(
    hits: ArrayLike, groups: ArrayLike, *, generator: np.random.Generator, permutations: int = 4000
) -> float:
    """Return the p of Pearson's statistic under relabelling: exact where counts are too small for `chi_squared`.

    `hits` says per sample whether, `groups` which group (whole numbers from 0). (1 + as extreme) / (1 + permutations),
    Phipson and Smyth 2010, so that it is never 0.
    """
    hit = np.asarray(hits, np.bool_)
    group = np.asarray(groups, np.intp)
    sizes = np.bincount(group).astype(np.float64)
    mean = hit.mean()
    if not 0 < mean < 1:
        return 1.0

    def statistic(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        known = sizes > 0
        expected = sizes[known] * mean
        return np.asarray(((counts[..., known] - expected) ** 2 / (expected * (1 - mean))).sum(-1))

    seen = float(statistic(np.bincount(group[hit], minlength=sizes.size).astype(np.float64)))
    at_once = max(1, _PERMUTATIONS_AT_ONCE // (int(hit.sum()) * 8))
    extreme = 0
    for start in range(0, permutations, at_once):
        rows = min(at_once, permutations - start)
        # Which groups the hits fall into, when hits are dealt to samples at random: multivariate hypergeometric.
        drawn = generator.multivariate_hypergeometric(sizes.astype(np.int64), int(hit.sum()), size=rows)
        extreme += int((statistic(drawn.astype(np.float64)) >= seen * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + permutations)


def fisher_greater(hits: int, size: int, other_hits: int, other_size: int) -> float:
    """Return the one-sided p of Fisher's exact test that the first share is greater than the second.

    The hypergeometric tail P(X >= hits). Raises ValueError where counts do not fit.
    """
    if not (0 <= hits <= size and 0 <= other_hits <= other_size):
        raise ValueError(f"{hits} of {size} and {other_hits} of {other_size}")
    total, all_hits = size + other_size, hits + other_hits
    whole = _log_choose(total, all_hits)
    logs = [
        _log_choose(size, k) + _log_choose(other_size, all_hits - k) - whole
        for k in range(hits, min(size, all_hits) + 1)
        if all_hits - k <= other_size
    ]
    return min(math.fsum(math.exp(each) for each in logs), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for asking several questions: Holm, Scand. J. Stat. 6 (1979), page 65.

    The chance of one false alarm or more among all is at most the level, whatever their dependence.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def stratified_excess(hits: ArrayLike, members: ArrayLike, strata: ArrayLike) -> tuple[float, float]:
    """Return how many hits the members were to have by their strata, and the z of how many they have.

    Mantel and Haenszel (1959): in each stratum the members' hits are hypergeometric; z = (O - E) / sqrt(V), 0 where
    nothing can vary. Hits of a kind that is hit more often (inputs near a decision boundary) are expected thereby.
    """
    hit, mine, stratum = np.asarray(hits, np.bool_), np.asarray(members, np.bool_), np.asarray(strata)
    expected = variance = 0.0
    for each in np.unique(stratum):
        here = stratum == each
        n, m, k = int(here.sum()), int((here & mine).sum()), int((here & hit).sum())
        expected += m * k / n
        if n > 1:
            variance += m * (n - m) * k * (n - k) / (n * n * (n - 1))
    observed = int((hit & mine).sum())
    return expected, (observed - expected) / math.sqrt(variance) if variance > 0 else 0.0


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
