from __future__ import annotations

import pytest

from edgewise.device.agent import schedule as due
from edgewise.device.agent.schedule import Action, Pace

PACE = Pace(interval_s=300.0, jitter=1.0)


def test_a_device_without_a_bundle_polls_at_once_and_one_with_a_bundle_spreads_its_first_poll() -> None:
    empty = due.begun(PACE, now=10.0, uniform=0.9, installed=False)
    assert (empty.poll_s, due.until(empty, 10.0), empty.healthy_s) == (10.0, 0.0, None)
    full = due.begun(PACE, now=10.0, uniform=0.5, installed=True)
    assert (full.poll_s, full.healthy_s) == (160.0, 10.0 + due.HEALTHY_AFTER_S)
    assert due.due(full, 10.0) is Action.WAIT


def test_what_is_due_longest_comes_first() -> None:
    schedule = due.begun(PACE, now=0.0, uniform=0.5, installed=True)
    found = []
    for now in (due.HEALTHY_AFTER_S, 150.0, 150.0):
        action = due.due(schedule, now)
        found.append(action)
        match action:
            case Action.HEALTHY:
                schedule = due.healthy(schedule)
            case Action.LABELS:
                schedule = due.labelled(schedule, now=now, uniform=0.0)
            case _:
                schedule = due.polled(schedule, PACE, now=now, uniform=0.0, failed=False)
    assert found == [Action.HEALTHY, Action.LABELS, Action.POLL]
    assert due.until(schedule, 150.0) == 300.0


def test_failures_wait_longer_and_a_success_ends_that() -> None:
    schedule, waits = due.begun(PACE, now=0.0, uniform=0.0, installed=False), []
    for failed in (True, True, True, False):
        schedule = due.polled(schedule, PACE, now=0.0, uniform=0.0, failed=failed)
        waits.append(schedule.poll_s)
    assert waits == [600.0, 1200.0, 2400.0, 300.0]
    after = due.polled(schedule, PACE, now=0.0, uniform=0.0, failed=True, retry_after_s=5000.0)
    assert after.poll_s == 5000.0


@pytest.mark.parametrize("text", [None, "", "nan", "inf", "-1", "0", "1e9", "soon", "9" * 400])
def test_a_pace_that_is_none_changes_nothing(text: str | None) -> None:
    assert due.paced(PACE, text, None if text == "0" else text) == PACE
