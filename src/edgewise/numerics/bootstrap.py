"""Bootstrap intervals of any statistic of a sample: percentiles, or bias-corrected and accelerated."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.contracts.evidence import Interval

Statistic = Callable[[NDArray[np.intp]], float]
"""Takes the positions that were drawn (with repeats), returns the statistic of those; nan where it is not defined."""

_NORMAL = NormalDist()
_MOST_UNDEFINED = 0.05
MOST_PARTS = 200


def percentile_interval(
    statistic: Statistic,
    samples: int,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Return the percentile interval of `statistic` over `samples` exchangeable units.

    Efron and Tibshirani 1993, section 13.3. None where the statistic is undefined on more than 5 % of the resamples.
    Raises ValueError for no samples.
    """
    if samples < 1:
        raise ValueError("no samples")
    drawn = np.array([statistic(generator.integers(samples, size=samples)) for _ in range(resamples)])
    defined = drawn[np.isfinite(drawn)]
    if defined.size < (1 - _MOST_UNDEFINED) * resamples:
        return None
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return Interval(low=float(low), high=float(high), level=level)


def bca_interval(
    statistic: Statistic,
    samples: int,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Return the BCa interval of `statistic` over `samples` exchangeable units.

    The jackknife leaves out one unit at a time, or one of 200 equal parts where there are more units. Costs at most
    `resamples` + 201 calls. None where the statistic is undefined on the sample itself or on more than 5 %
    of the resamples. Raises ValueError for no samples.
    """
    if samples < 1:
        raise ValueError("no samples")
    whole = statistic(np.arange(samples))
    drawn = np.array([statistic(generator.integers(samples, size=samples)) for _ in range(resamples)])
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(whole) or defined.size < (1 - _MOST_UNDEFINED) * resamples:
        return None
    everyone, parts = np.arange(samples), min(samples, MOST_PARTS)
    left_out = np.array([statistic(everyone[everyone % parts != at]) for at in range(parts)]) if parts > 1 else defined
    return bca_from(defined, whole, left_out[np.isfinite(left_out)], level=level)


def bca_from(drawn: ArrayLike, estimate: float, left_out: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the BCa interval from bootstrap replicates and jackknife values (each sample left out once).

    Efron, JASA 82 (1987), equations 2.3 and 6.6; ties with the estimate count half in the bias correction. Where all
    replicates are equal the interval has no width.
    """
    replicates = np.asarray(drawn, np.float64)
    below = (float((replicates < estimate).mean()) + float((replicates <= estimate).mean())) / 2
    if below in {0.0, 1.0}:  # no bias can be told from replicates on one side only
        below = 0.5
    bias = _NORMAL.inv_cdf(below)
    values = np.asarray(left_out, np.float64)
    influence = values.mean() - values if values.size else np.zeros(1)
    spread = float((influence**2).sum()) ** 1.5
    acceleration = float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        ends.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(replicates, ends)
    return Interval(low=float(low), high=float(high), level=level)
