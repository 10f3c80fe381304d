from __future__ import annotations

import math

import numpy as np
import pytest

from edgewise.numerics.device_assignments import p_assigned

CANARY = np.arange(50) < 10
TRIALS = np.full(50, 3600.0)
ONE_CLASS = np.zeros(50, dtype=np.int64)


def test_a_broken_canary_says_as_much_as_one_device() -> None:
    broken = np.zeros(50)
    broken[0] = 1000
    assert p_assigned(broken, TRIALS, CANARY, ONE_CLASS, 0.005) == pytest.approx(10 / 50)
    assert p_assigned(np.where(CANARY, 100.0, 0.0), TRIALS, CANARY, ONE_CLASS, 0.005) == pytest.approx(
        1 / math.comb(50, 10)
    )


def test_a_broken_control_does_not_hide_bad_canaries() -> None:
    events = np.where(CANARY, 72.0, 4.0)
    events[-1] = 720.0
    assert p_assigned(events, TRIALS, CANARY, ONE_CLASS, 0.005) < 1e-3


def test_late_joiners_with_the_same_rate_are_not_worse() -> None:
    trials = np.where(CANARY, 360.0, 3600.0)
    assert p_assigned(trials / 360, trials, CANARY, ONE_CLASS, 0.005) > 0.3


@pytest.mark.parametrize("canary", [np.zeros(50, dtype=np.bool_), np.ones(50, dtype=np.bool_)], ids=["none", "all"])
def test_without_both_arms_nothing_is_told(canary: np.ndarray) -> None:
    assert p_assigned(np.ones(50), TRIALS, canary, ONE_CLASS, 0.005) == 1.0


def test_devices_that_did_nothing_do_not_count() -> None:
    idle = np.where(np.arange(50) % 2 == 0, 0.0, 3600.0)
    events = np.where(CANARY & (idle > 0), 50.0, 0.0)
    assert p_assigned(events, idle, CANARY, ONE_CLASS, 0.005) == pytest.approx(1 / math.comb(25, 5))


def test_no_events_are_no_harm() -> None:
    assert p_assigned(np.zeros(50), TRIALS, CANARY, ONE_CLASS, 0.0) == 1.0
