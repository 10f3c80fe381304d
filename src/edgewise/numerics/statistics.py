"""Summaries, intervals and tests that evidence is made of. Randomness comes in as a generator."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.contracts.evidence import Interval

DoubleArray = NDArray[np.float64]

# Resampled values held at once: 8 MiB.
_VALUES_AT_ONCE = 1 << 20


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of a sample, in its own unit, linearly interpolated."""

    p50: float
    p90: float
    p99: float
    max: float


def summary(values: ArrayLike) -> Summary:
    """Return the percentiles of `values`. Raises ValueError where there are none."""
    sample = _sample(values)
    p50, p90, p99 = np.percentile(sample, (50, 90, 99))
    return Summary(p50=float(p50), p90=float(p90), p99=float(p99), max=float(sample.max()))


def median_ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return the bootstrap interval of the median of numerator_i / denominator_i over paired rounds.

    Percentile bootstrap (Efron and Tibshirani 1993, section 13.3), resampling whole rounds, so that
    what slows both sides of a round cancels. Raises ValueError where the pairs do not match or are none.
    """
    ratios = _sample(numerator) / _sample(denominator)
    at_once = max(_VALUES_AT_ONCE // ratios.size, 1)
    medians = []
    for start in range(0, resamples, at_once):
        rounds = generator.integers(ratios.size, size=(min(at_once, resamples - start), ratios.size))
        medians.append(np.median(ratios[rounds], axis=1))
    low, high = np.quantile(np.concatenate(medians), ((1 - level) / 2, (1 + level) / 2))
    return Interval(low=float(low), high=float(high), level=level)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the normal interval of the mean: mean +- z s / sqrt(n). For shares use `share_interval`."""
    sample = _sample(values)
    spread = float(sample.std(ddof=1)) / math.sqrt(sample.size) if sample.size > 1 else math.inf
    half = _quantile(level) * spread
    return Interval(low=float(sample.mean()) - half, high=float(sample.mean()) + half, level=level)


def share_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the interval of a share (flips, hits): Wilson, JASA 22 (1927), page 209.

    Unlike `mean_interval` it has a width at 0 of n and n of n. Raises ValueError unless 0 <= successes <= trials > 0.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials}")
    z = _quantile(level)
    p, shrink = successes / trials, z * z / trials
    centre = (p + shrink / 2) / (1 + shrink)
    half = z / (1 + shrink) * math.sqrt(p * (1 - p) / trials + shrink / (4 * trials))
    return Interval(low=max(centre - half, 0.0), high=min(centre + half, 1.0), level=level)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value of McNemar's test, from the two discordant counts.

    Binomial with 1/2 (McNemar 1947; exact form of Fagerland et al., BMC Med. Res. Methodol. 13:91, 2013).
    """
    trials, fewer = only_first + only_second, min(only_first, only_second)
    term = total = 1
    for k in range(1, fewer + 1):
        term = term * (trials - k + 1) // k
        total += term
    return min(2 * total / (1 << trials), 1.0)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation, ties averaged; nan where a side is constant.

    Raises ValueError where the lengths differ.
    """
    a, b = ranks(x), ranks(y)
    if a.size != b.size:
        raise ValueError(f"{a.size} and {b.size} values")
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return P(positive score > negative score), ties counted half: the area under the ROC curve.

    From the rank sum (Mann-Whitney U). nan where a side is empty.
    """
    p, n = np.asarray(positives, dtype=np.float64).reshape(-1), np.asarray(negatives, dtype=np.float64).reshape(-1)
    if not (p.size and n.size):
        return math.nan
    rank_sum = float(ranks(np.concatenate((p, n)))[: p.size].sum())
    return (rank_sum - p.size * (p.size + 1) / 2) / (p.size * n.size)


def ranks(values: ArrayLike) -> DoubleArray:
    """Return the ranks of `values`, flattened, from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(np.asarray(values).reshape(-1), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def log_softmax(logits: ArrayLike, *, axis: int = -1) -> DoubleArray:
    """Return log(softmax(logits)) along `axis`, without overflow."""
    x = np.asarray(logits, dtype=np.float64)
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def softmax(logits: ArrayLike, *, axis: int = -1) -> DoubleArray:
    """Return exp(logits) / sum(exp(logits)) along `axis`, without overflow."""
    x = np.asarray(logits, dtype=np.float64)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(weights / weights.sum(axis=axis, keepdims=True))


def edit_distance(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> int:
    """Return the least number of insertions, deletions and substitutions between two sequences.

    Words in a list or characters in a string. Bit-parallel: Hyyro, "Explaining and extending the
    bit-parallel approximate string matching algorithm of Myers" (2001), one integer for a column of
    the table.
    """
    if not reference or not candidate:
        return len(reference) + len(candidate)
    where: dict[Hashable, int] = {}
    for index, item in enumerate(reference):
        where[item] = where.get(item, 0) | 1 << index
    mask = (1 << len(reference)) - 1
    last = 1 << (len(reference) - 1)
    # Bits of rows whose value is one more (up) or one less (down) than the row above.
    up, down, distance = mask, 0, len(reference)
    for item in candidate:
        match = where.get(item, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right, left = (down | ~(diagonal | up)) & mask, up & diagonal
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & mask, right & diagonal & mask
    return distance


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _sample(values: ArrayLike) -> DoubleArray:
    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if sample.size == 0:
        raise ValueError("no values")
    return sample
