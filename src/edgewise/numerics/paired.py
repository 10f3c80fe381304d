"""Two classifiers on the same samples: how far their shares of hits lie apart, with an interval that holds.

The samples on which only one of the two is right decide; for n samples, b that only the first and c that only
the second has right, the difference is (b - c) / n.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from edgewise.contracts.evidence import Interval

_STEPS = 80
"""Halvings of an interval of length 2: far below the rounding of a double."""


def share_difference_interval(only_first: int, only_second: int, samples: int, *, level: float = 0.95) -> Interval:
    """Return the score interval of (b - c) / n: Tango, Statistics in Medicine 17 (1998), equations 3 to 6.

    All differences d that the score test of "the true difference is d" does not reject. It keeps its coverage
    where a percentile bootstrap or mean +- z s / sqrt(n) collapses: with no or few discordant samples. Raises
    ValueError unless b, c >= 0 and b + c <= n, n > 0.
    """
    if only_first < 0 or only_second < 0 or samples <= 0 or only_first + only_second > samples:
        raise ValueError(f"{only_first} and {only_second} of {samples}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (only_first - only_second) / samples
    low = _root(only_first, only_second, samples, inside=middle, outside=-1.0, z=z)
    high = _root(only_first, only_second, samples, inside=middle, outside=1.0, z=z)
    return Interval(low=low, high=high, level=level)


def score_statistic(only_first: int, only_second: int, samples: int, difference: float) -> float:
    """Return Tango's z of the hypothesis that the true difference is `difference`, within -1 to 1.

    (b - c - n d) / sqrt(n (2 q + d (1 - d))), q the share of "only second" that is most likely under it.
    """
    b, c, n, d = only_first, only_second, samples, difference
    distance = b - c - n * d
    if distance == 0:
        return 0.0
    linear = -b - c + (2 * n - b + c) * d
    q = (math.sqrt(max(linear * linear + 8 * n * c * d * (1 - d), 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def _root(b: int, c: int, n: int, *, inside: float, outside: float, z: float) -> float:
    """Return the last difference between `inside` and `outside` that is not rejected."""
    if abs(score_statistic(b, c, n, outside)) <= z:
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if abs(score_statistic(b, c, n, middle)) <= z:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2
