"""Looking at a test more than once: alpha spending, and Holm's order over several tests.

A gate looks at the same devices again and again. Each look may err, so the looks share one error: at the share t of
the plan, at most alpha(t) of it is spent (Lan and DeMets, Biometrika 70, 1983, 659-663), with the function that follows
O'Brien and Fleming (their equation for alpha*_1): next to nothing early, nearly all at the last look.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEAST_GAP = 1 / 128
"""Two looks are at least so far apart, as shares of the plan: the integrals below are resolved for that."""

_NODES = 401
_BEYOND = 8.0
_HALVINGS = 100
# Spending less than this at a look is spending nothing: doubles do not resolve it.
_NOTHING = 1e-15

DoubleArray = NDArray[np.float64]
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def spent(fraction: float, alpha: float) -> float:
    """Return how much of a one-sided `alpha` may be spent at the share `fraction` of the plan.

    2 - 2 Phi(z / sqrt(t)) with z the upper alpha/2 point, Lan and DeMets 1983, alpha*_1.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    return math.erfc(z / math.sqrt(2 * min(fraction, 1.0)))


@functools.lru_cache(maxsize=4096)
def nominal_levels(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the one-sided level of each look's own p-value, so that all looks together err with `alpha`.

    `fractions` are the looks so far, ascending in (0, 1]. The statistic is taken as Brownian motion at these times;
    the chance of first crossing at each look is integrated (Armitage, McPherson and Rowe, JRSS A 132, 1969,
    section 3). Where devices differ for good, looks are more alike than that, and the levels err on the safe side.
    Raises ValueError where looks are not ascending, or closer than `LEAST_GAP`.
    """
    before = (0.0, *fractions[:-1])
    if any(t - s < LEAST_GAP for s, t in zip(before, fractions, strict=True)) or any(t > 1 for t in fractions):
        raise ValueError(f"looks at {fractions}: ascending in (0, 1], {LEAST_GAP} apart or more")
    levels: list[float] = []
    nodes, mass = np.zeros(1), np.ones(1)
    for s, t in zip(before, fractions, strict=True):
        step = math.sqrt(t - s)
        bound = _bound(nodes, mass, step, spent(t, alpha) - spent(s, alpha) if s else spent(t, alpha))
        levels.append(_tail(bound / math.sqrt(t)))
        low, high = -_BEYOND * math.sqrt(t), min(bound, _BEYOND * math.sqrt(t))
        grid = np.linspace(low, high, _NODES)
        density = (np.exp(-((grid[:, None] - nodes[None, :]) ** 2) / (2 * step * step)) * mass).sum(axis=1)
        mass = density * _simpson() * (high - low) / (_NODES - 1) / (step * math.sqrt(2 * math.pi))
        nodes = grid
    return tuple(levels)


def holm(p_values: Sequence[float], weights: Sequence[float], level: Callable[[float], float]) -> tuple[bool, ...]:
    """Return which hypotheses are rejected, in Holm's weighted order (Scandinavian J. of Statistics 6, 1979, 65-70).

    `level(share)` is the level of a test that has this share of the error: at a single look `alpha * share`; at a look
    of several, the nominal level of `alpha * share` there (Maurer and Bretz, Stat. Biopharm. Res. 5, 2013).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index] / weights[index])
    rejected = [False] * len(p_values)
    left = sum(weights)
    for index in order:
        if p_values[index] > level(weights[index] / left):
            break
        rejected[index] = True
        left -= weights[index]
    return tuple(rejected)


def _simpson() -> DoubleArray:
    """Return the weights of Simpson's rule for a step of 1."""
    weights = np.full(_NODES, 2 / 3)
    weights[1::2] = 4 / 3
    weights[[0, -1]] = 1 / 3
    return weights


def _bound(nodes: DoubleArray, mass: DoubleArray, step: float, share: float) -> float:
    """Return b with P(path beyond b at this look, and not before) = share, by bisection."""
    if share < _NOTHING:
        return math.inf
    low, high = -_BEYOND, _BEYOND + float(nodes.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        chance = float(mass @ _erfc((middle - nodes) / (step * math.sqrt(2)))) / 2
        low, high = (middle, high) if chance > share else (low, middle)
    return high


def _tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2
