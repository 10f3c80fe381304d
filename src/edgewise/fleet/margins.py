"""From the budget to what a gate asks: the margin is the headroom that the release before leaves.

The budget is the contract: a limit of 5 ms, of which devices now use 4.6, leaves 0.087, and a release may be that much
slower. It may not be more than `MOST_MARGIN` slower whatever the headroom; where there is none, it has to be proven
faster.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgewise.contracts.budget import Budget
from edgewise.contracts.rollout import GatePolicy, MetricGate, RateGate, Statistic
from edgewise.contracts.telemetry import (
    ENERGY_MJ,
    LATENCY_MS,
    REQUESTS,
    SHADOW_COMPARED,
    SHADOW_DISAGREED,
)
from edgewise.errors import RolloutError
from edgewise.fleet.evidence import CRASHES

MOST_MARGIN = 0.10
CRASH_MARGIN = 0.005
"""Crashes per request more than the controls': half a point."""

_GATED = {
    "latency_p50_ms": (LATENCY_MS, Statistic.P50),
    "latency_p99_ms": (LATENCY_MS, Statistic.P99),
    "energy_mj": (ENERGY_MJ, Statistic.MEAN),
}


def policy_of(
    budget: Budget,
    current: Mapping[str, float],
    *,
    report_s: int,
    shadow: bool = False,
    most_margin: float = MOST_MARGIN,
) -> GatePolicy:
    """Return the gates of a budget; `current` has the fleet's present figure of each limit on time and energy.

    Crashes are always gated, disagreement where the rollout runs in the shadow and the budget limits flips. Raises
    RolloutError where a present figure is missing, since its headroom is then unknown.
    """
    limits = budget.limits()
    metrics = tuple(
        MetricGate(metric=metric, statistic=statistic, margin=_headroom(name, limits[name], current, most_margin))
        for name, (metric, statistic) in _GATED.items()
        if name in limits
    )
    rates = [RateGate(events=CRASHES, trials=REQUESTS, margin=CRASH_MARGIN)]
    if shadow and budget.flip_rate is not None:
        rates.append(
            RateGate(
                events=SHADOW_DISAGREED,
                trials=SHADOW_COMPARED,
                margin=budget.flip_rate,
                against_controls=False,
            )
        )
    return GatePolicy(metrics=metrics, rates=tuple(rates), report_s=report_s)


def _headroom(name: str, limit: float, current: Mapping[str, float], most: float) -> float:
    found = current.get(name)
    if found is None or found <= 0:
        raise RolloutError(
            f"the budget limits {name} to {limit:g}, and the fleet reports no {name} now",
            required="a present figure of every limit that is gated",
            next_step=f"wait until devices report {name}, or take the limit out of the rollout's budget",
        )
    return min(max(limit / found - 1, 0.0), most)
