"""Choose the calibration samples of a pool, and say how well they stand for it.

A channel of an activation is an *outlier channel* of the pool where some samples drive it much further than is
typical. A sample covers it that drives it nearly as far as any. Choosing samples is then a weighted set cover
(COVERCAL, arXiv 2604.24008): what is missed is clipped on the device, and weighs the more the larger the channel is
in its tensor. The paper states the problem for language models; thresholds and weights here are our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.curation import Method, Quality
from edgewise.forge.curate.observe import Observed
from edgewise.numerics.cover import farthest_first, greedy_cover

FAR = 2.0
"""An outlier channel's largest peak is at least so many times its median peak over the pool."""
NEAR = 0.98
"""A sample covers a channel whose peak is beyond this quantile of the pool, and beyond FAR times the median."""
_FEATURES = 512


class Elements(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be covered: outlier channels with their weights."""

    covers: NDArray[np.bool_]
    """Whether a sample covers an outlier channel [samples, outliers]."""
    weights: NDArray[np.float64]
    """[outliers]; the outlier channels of one tensor weigh at most 1 together."""
    columns: NDArray[np.int64]
    """The columns of `Observed` that are outlier channels."""
    reach: NDArray[np.float64]
    """Mean of a sample's peaks, each over the pool's largest [samples]: it decides between equal gains."""


def elements(seen: Observed) -> Elements:
    """Return the outlier channels of a pool.

    A column's weight is the square of its largest peak over the sum of those of its tensor: the error of clipping it
    entirely, beside the others'.
    """
    peaks = seen.peaks
    largest = peaks.max(axis=0).astype(np.float64)
    typical = np.median(peaks, axis=0).astype(np.float64)
    columns = np.flatnonzero((largest > FAR * typical) & (largest > 0))
    threshold = np.maximum(FAR * typical, np.quantile(peaks, NEAR, axis=0))[columns]
    shares = largest**2 / _per_tensor(seen, largest**2)
    return Elements(
        covers=(peaks[:, columns] >= threshold) & (peaks[:, columns] > 0),
        weights=shares[columns],
        columns=columns,
        reach=(peaks / np.where(largest > 0, largest, 1.0)).mean(axis=1),
    )


def choose(
    seen: Observed,
    count: int,
    *,
    method: Method,
    seed: int,
    found: Elements | None = None,
    among: Sequence[int] | None = None,
) -> list[int]:
    """Return `count` rows of `seen`, those of `among` or all; fewer where there are not so many.

    `found` are the elements of `seen`, where they are known already.
    """
    rows = np.arange(len(seen.peaks)) if among is None else np.asarray(among, np.int64)
    count = min(count, len(rows))
    match method:
        case Method.COVER:
            found = elements(seen) if found is None else found
            picked = greedy_cover(found.covers[rows], found.weights, count, reach=found.reach[rows])
        case Method.K_CENTRE:
            picked = farthest_first(_features(seen)[rows], count)
        case _:
            picked = np.random.default_rng(seed).permutation(len(rows))[:count].tolist()
    return [int(rows[at]) for at in picked]


def coverage(found: Elements, rows: Sequence[int]) -> float:
    """Return the weight of the outlier channels that some of `rows` covers, over the weight of all; 1 without any."""
    total = float(found.weights.sum())
    return float(found.weights[found.covers[list(rows)].any(axis=0)].sum()) / total if total else 1.0


def compare(seen: Observed, count: int, *, seed: int, seeds: int = 5, share: float = 0.8) -> tuple[Quality, ...]:
    """Return the quality of every method over `seeds` random parts of the pool, each `share` of it.

    Judged against the whole pool: a method whose choice depends on which part it happened to see has a large spread.
    """
    found = elements(seen)
    size = max(1, round(share * len(seen.peaks)))
    orders = [np.random.default_rng((seed, at)).permutation(len(seen.peaks)) for at in range(seeds)]
    parts = [sorted(each[:size].tolist()) for each in orders]
    qualities = []
    for method in Method:
        picks = [
            choose(seen, count, method=method, seed=seed + at, found=found, among=part) for at, part in enumerate(parts)
        ]
        covered = [coverage(found, rows) for rows in picks]
        ranges = np.array([range_shares(seen, rows) for rows in picks])
        qualities.append(
            Quality(
                method=method,
                coverage=float(np.mean(covered)),
                coverage_low=min(covered),
                coverage_high=max(covered),
                range_share=float(ranges.mean()),
                range_spread=float(ranges.std(axis=0).mean()),
            )
        )
    return tuple(qualities)


def range_shares(seen: Observed, rows: Sequence[int]) -> NDArray[np.float64]:
    """Return the range (with 0 in it) of each tensor over `rows`, as a share of the pool's [tensors]."""
    chosen, whole = (_ranges(seen, some) for some in (list(rows), slice(None)))
    return np.asarray(chosen / np.where(whole > 0, whole, 1.0) + (whole == 0))


def _ranges(seen: Observed, rows: list[int] | slice) -> NDArray[np.float64]:
    high = np.maximum(seen.highs[rows].max(axis=0), 0).astype(np.float64)
    return np.asarray(high - np.minimum(seen.lows[rows].min(axis=0), 0))


def _per_tensor(seen: Observed, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for every column the sum of `values` over its tensor (1 where that is 0)."""
    _, tensor = np.unique(seen.tensors, return_inverse=True)
    totals = np.bincount(tensor, weights=values)[tensor]
    return np.where(totals > 0, totals, 1.0)


def _features(seen: Observed) -> NDArray[np.float64]:
    """Return the peaks as features of equal scale, of at most so many columns."""
    columns = np.linspace(0, seen.peaks.shape[1] - 1, min(_FEATURES, seen.peaks.shape[1])).round().astype(np.int64)
    values = seen.peaks[:, columns].astype(np.float64)
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
