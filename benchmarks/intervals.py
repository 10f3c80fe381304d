"""How often the 95 % intervals of a verification hold the truth, over 200 seeded re-samplings.

    python benchmarks/intervals.py [--samplings 200] [--seed 0]

Each row draws 200 data sets from a law whose truth is known, computes the interval of each, and counts. By chance
alone an honest interval is seen to cover between 92 % and 98 % of 200, so the Wilson interval of the coverage stands
beside it. So does the coverage of another way: the percentile bootstrap, or BCa where ours is that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.evidence import Interval
from edgewise.numerics.bootstrap import bca_interval, percentile_interval
from edgewise.numerics.paired import share_difference_interval
from edgewise.numerics.statistics import auroc, median_ratio_interval, share_interval, spearman

Floats = NDArray[np.float64]
TARGET = (0.93, 0.97)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A figure whose truth is known, and how its interval is found."""

    name: str
    truth: float
    ours: Callable[[np.random.Generator], tuple[Interval, Interval]]
    """Draws one data set; returns our interval and that of another way."""


def percentile(statistic: Callable[[NDArray[np.intp]], float], samples: int, random: np.random.Generator) -> Interval:
    """Return the plain percentile bootstrap interval."""
    found = percentile_interval(statistic, samples, generator=random, resamples=600)
    return found or Interval(low=np.nan, high=np.nan)


def share(p: float, n: int) -> Case:
    """Return a score that is a share of hits, or the share of flips."""

    def draw(random: np.random.Generator) -> tuple[Interval, Interval]:
        hits = random.random(n) < p
        return share_interval(int(hits.sum()), n), percentile(lambda at: float(hits[at].mean()), n, random)

    return Case(name=f"share {p:g}, n = {n} (Wilson)", truth=p, ours=draw)


def difference(lost: float, won: float, n: int) -> Case:
    """Return the difference of two shares of hits on the same samples."""

    def draw(random: np.random.Generator) -> tuple[Interval, Interval]:
        kind = random.random(n)
        change = np.where(kind < lost, 1.0, np.where(kind < lost + won, -1.0, 0.0))
        ours = share_difference_interval(int((change > 0).sum()), int((change < 0).sum()), n)
        return ours, percentile(lambda at: float(change[at].mean()), n, random)

    return Case(name=f"score difference, {lost:g} lost {won:g} won, n = {n} (Tango)", truth=lost - won, ours=draw)


def correlation(n: int) -> Case:
    """Return the loss of Spearman's correlation of a variant against fp32 on the same pairs."""

    def loss(z: Floats) -> Callable[[NDArray[np.intp]], float]:
        return lambda at: spearman(z[at, 0], z[at, 1]) - spearman(z[at, 0], z[at, 2])

    def sample(random: np.random.Generator, size: int) -> Floats:
        people = random.normal(size=size)
        fp32 = people + 0.7 * random.normal(size=size)
        return np.stack([people, fp32, fp32 + 0.25 * random.normal(size=size)], 1)

    whole = sample(np.random.default_rng(12345), 2_000_000)
    return _resampled(
        f"difference of Spearman, n = {n} (percentile)", loss(whole)(np.arange(len(whole))), loss, sample, n
    )


def anomaly(n: int) -> Case:
    """Return the loss of AUROC of a variant against fp32 on the same samples."""

    def loss(z: Floats) -> Callable[[NDArray[np.intp]], float]:
        def value(at: NDArray[np.intp]) -> float:
            odd = z[at, 0] > 0
            return auroc(z[at[odd], 1], z[at[~odd], 1]) - auroc(z[at[odd], 2], z[at[~odd], 2])

        return value

    def sample(random: np.random.Generator, size: int) -> Floats:
        odd = random.random(size) < 0.3
        fp32 = random.normal(size=size) + 1.5 * odd
        return np.stack([odd.astype(np.float64), fp32, fp32 + 0.4 * random.normal(size=size)], 1)

    whole = sample(np.random.default_rng(54321), 2_000_000)
    return _resampled(f"difference of AUROC, n = {n} (percentile)", loss(whole)(np.arange(len(whole))), loss, sample, n)


def speed(rounds: int) -> Case:
    """Return the median over rounds of the ratio of two times, whose noise is shared within a round and skewed."""

    def draw(random: np.random.Generator) -> tuple[Interval, Interval]:
        shared = random.lognormal(sigma=0.4, size=rounds)
        mine = shared * random.lognormal(sigma=0.08, size=rounds)
        its = shared * 1.6 * random.lognormal(sigma=0.08, size=rounds)
        ratio = its / mine
        ours = median_ratio_interval(its, mine, generator=random)
        return ours, percentile(lambda at: float(np.median(ratio[at])), rounds, random)

    return Case(name=f"speed ratio, {rounds} rounds (bootstrap of the median)", truth=1.6, ours=draw)


def _resampled(
    name: str,
    truth: float,
    loss: Callable[[Floats], Callable[[NDArray[np.intp]], float]],
    sample: Callable[[np.random.Generator, int], Floats],
    n: int,
) -> Case:
    def draw(random: np.random.Generator) -> tuple[Interval, Interval]:
        statistic = loss(sample(random, n))
        other = bca_interval(statistic, n, generator=random, resamples=600)
        return percentile(statistic, n, random), other or Interval(low=np.nan, high=np.nan)

    return Case(name=name, truth=truth, ours=draw)


def cases() -> Iterator[Case]:
    """Yield what is looked at."""
    yield share(0.9, 100)
    yield share(0.9, 1000)
    yield share(0.02, 500)
    yield difference(0.03, 0.02, 200)
    yield difference(0.03, 0.02, 1000)
    yield difference(0.06, 0.01, 500)
    yield correlation(100)
    yield correlation(400)
    yield anomaly(150)
    yield speed(100)
    yield speed(400)


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplings", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"coverage of 95 % intervals over {options.samplings} samplings, seed {options.seed}")
    print(f"{'figure':62} {'truth':>9} {'ours':>7} {'of that':>15} {'other way':>11}")
    for number, case in enumerate(cases()):
        random = np.random.default_rng((options.seed, number))
        held = np.zeros(2, np.int64)
        for _ in range(options.samplings):
            held += [each.low <= case.truth <= each.high for each in case.ours(random)]
        ours, plain = held / options.samplings
        around = share_interval(int(held[0]), options.samplings)
        mark = "" if TARGET[0] <= ours <= TARGET[1] else "  outside 93 to 97 %"
        chance = f"{around.low:.1%}-{around.high:.1%}"
        print(f"{case.name:62} {case.truth:9.4f} {ours:7.1%} {chance:>15} {plain:11.1%}{mark}", flush=True)


if __name__ == "__main__":
    main()
