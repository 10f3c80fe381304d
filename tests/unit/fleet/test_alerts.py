from __future__ import annotations

import pytest

from edgewise.fleet.alerts import Burning, Outcomes, burns

NOW = 100_000.0
HOUR = 3600


def minutes(count: int, *, total: int, bad: int, until: float = NOW) -> list[Outcomes]:
    return [Outcomes(at_s=until - 60.0 * minute, total=total, bad=bad) for minute in range(count)]


def states(outcomes: list[Outcomes], objective: float = 0.99) -> list[Burning]:
    return [each.state for each in burns(outcomes, objective=objective, now_s=NOW)]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (15, [Burning.FIRING, Burning.FIRING]),
        (14, [Burning.QUIET, Burning.FIRING]),
        (6, [Burning.QUIET, Burning.FIRING]),
        (5, [Burning.QUIET, Burning.QUIET]),
    ],
)
def test_each_rule_fires_at_its_own_rate(bad: int, expected: list[Burning]) -> None:
    assert states(minutes(360, total=100, bad=bad)) == expected


def test_trouble_that_is_over_no_longer_fires() -> None:
    over = minutes(6, total=100, bad=0) + minutes(50, total=100, bad=50, until=NOW - 360)
    assert states(over)[0] is Burning.QUIET


def test_trouble_that_has_just_begun_does_not_fire_yet() -> None:
    assert states(minutes(3, total=100, bad=50) + minutes(357, total=100, bad=0, until=NOW - 180))[0] is Burning.QUIET


def test_few_events_are_neither_trouble_nor_quiet() -> None:
    assert states([Outcomes(at_s=NOW, total=3, bad=1)]) == [Burning.TOO_FEW] * 2
    assert states([Outcomes(at_s=NOW, total=50, bad=0)]) == [Burning.TOO_FEW] * 2
    assert states([]) == [Burning.TOO_FEW] * 2


def test_what_is_older_or_yet_to_come_does_not_count() -> None:
    old = minutes(60, total=100, bad=100, until=NOW - 7 * HOUR)
    future = minutes(60, total=100, bad=100, until=NOW + HOUR + 60)
    (page, _) = burns(old + future[:59] + minutes(60, total=100, bad=1), objective=0.99, now_s=NOW)
    assert (page.total, page.bad) == (6000, 60)
    assert page.long_rate == pytest.approx(1.0)


@pytest.mark.parametrize("objective", [0.0, 1.0, 1.5])
def test_an_objective_without_a_budget_is_refused(objective: float) -> None:
    with pytest.raises(ValueError, match="objective"):
        burns([], objective=objective, now_s=NOW)
