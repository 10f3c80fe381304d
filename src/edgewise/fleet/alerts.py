"""Burn-rate alerts: how fast the fleet spends its error budget.

An objective of 0.99 leaves a budget of 0.01. A burn rate of 1 spends it exactly over the objective's period; one of
14.4 spends 2 % of a month's in an hour. An alert needs a long window, so that it means something, and a short one, so
that it ends when the trouble does (Google, The Site Reliability Workbook, 2018, chapter 5, table 5-8). It also needs
enough events: one bad answer among three is no incident.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from edgewise.contracts.base import Value


class BurnRule(Value, kw_only=True):
    """Fires where both windows burn at `factor` or more."""

    name: str
    factor: float
    long_s: int
    short_s: int


RULES = (
    BurnRule(name="page", factor=14.4, long_s=3600, short_s=300),
    BurnRule(name="ticket", factor=6.0, long_s=6 * 3600, short_s=1800),
)
"""2 % of a month's budget in an hour, 5 % in six."""


class Outcomes(Value, kw_only=True):
    """What requests became, counted at the server's time `at_s`; `bad` of `total`."""

    at_s: float
    total: int
    bad: int


class Burning(StrEnum):
    """What a rule says."""

    FIRING = "firing"
    QUIET = "quiet"
    TOO_FEW = "too_few"
    """Not enough events to say either: never reported as quiet."""


class Burn(Value, kw_only=True):
    """One rule's answer. Rates are burn rates; None without events in the window."""

    rule: str
    factor: float
    state: Burning
    long_rate: float | None
    short_rate: float | None
    total: int
    """Events in the long window."""
    bad: int


def burns(
    outcomes: Sequence[Outcomes],
    *,
    objective: float,
    now_s: float,
    least_total: int = 100,
    least_bad: int = 10,
    rules: Iterable[BurnRule] = RULES,
) -> tuple[Burn, ...]:
    """Return what each rule says at `now_s`.

    A rule can fire with `least_bad` bad events in its long window, and say quiet with `least_total` events there.
    Raises ValueError unless `objective` lies between 0 and 1.
    """
    if not 0 < objective < 1:
        raise ValueError(f"an objective of {objective}, required between 0 and 1")
    return tuple(_burn(rule, outcomes, 1 - objective, now_s, least_total, least_bad) for rule in rules)


def _burn(
    rule: BurnRule, outcomes: Sequence[Outcomes], budget: float, now_s: float, least_total: int, least_bad: int
) -> Burn:
    total, bad = _within(outcomes, now_s - rule.long_s, now_s)
    short_total, short_bad = _within(outcomes, now_s - rule.short_s, now_s)
    long_rate = bad / total / budget if total else None
    short_rate = short_bad / short_total / budget if short_total else None
    least = rule.factor * (1 - 1e-9)  # 1 - 0.99 is not quite 0.01
    burning = all(rate is not None and rate >= least for rate in (long_rate, short_rate))
    if burning and bad >= least_bad:
        state = Burning.FIRING
    elif burning or total < least_total:
        state = Burning.TOO_FEW
    else:
        state = Burning.QUIET
    return Burn(
        rule=rule.name,
        factor=rule.factor,
        state=state,
        long_rate=long_rate,
        short_rate=short_rate,
        total=total,
        bad=bad,
    )


def _within(outcomes: Sequence[Outcomes], after_s: float, until_s: float) -> tuple[int, int]:
    inside = [each for each in outcomes if after_s < each.at_s <= until_s]
    return sum(each.total for each in inside), sum(each.bad for each in inside)
