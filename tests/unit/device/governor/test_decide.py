from __future__ import annotations

import pytest

from edgewise.contracts.budget import Budget
from edgewise.device.governor.decide import ENOUGH, Cause, Level, Reading, State, decide
from edgewise.device.governor.policy import GovernorPolicy, policy_for

POLICY = GovernorPolicy(dwell_s=2.0, calm_s=3.0, hot_c=80.0, cool_c=70.0)
LEVELS = (
    Level(variant="fp32", latency_ms=9.0, energy_mj=9.0, memory_mib=40.0),
    Level(variant="int8", latency_ms=4.0, energy_mj=2.0, memory_mib=12.0),
    Level(variant="tiny", latency_ms=3.0, energy_mj=3.0, memory_mib=20.0),
)


def at(seconds: float, **fields: float) -> Reading:
    return Reading(at_s=seconds, **{"items": ENOUGH if "lateness" in fields else 0, **fields})  # type: ignore[arg-type]


def test_lateness_goes_as_far_down_as_the_measured_times_say() -> None:
    found = decide(POLICY, LEVELS, State(), at(0.0, lateness=1.2))
    assert (found.state.level, found.cause) == (1, Cause.LATE)  # 1.2 * 4 / 9 fits
    assert "120%" in found.reason
    assert "int8" in found.reason
    assert decide(POLICY, LEVELS, State(), at(0.0, lateness=2.5)).state.level == 2


def test_a_lower_variant_at_ease_does_not_climb_where_the_one_above_would_be_late() -> None:
    state, now = State(level=1, cause=Cause.LATE, switches=(0.0,)), 1.0
    while now < 100:
        found = decide(POLICY, LEVELS, state, at(now, lateness=0.4))  # 0.4 * 9 / 4 = 0.9 of the deadline
        assert found.cause is None
        assert "90%" in found.reason
        state, now = found.state, now + 0.1
    while state.level:
        state, now = decide(POLICY, LEVELS, state, at(now, lateness=0.2)).state, now + 0.1
    assert 102.8 < now < 103.5


def test_few_items_after_a_switch_say_nothing_about_a_higher_variant() -> None:
    state = State(level=1, cause=Cause.LATE, switches=(0.0,))
    for now in range(10, 30):
        found = decide(POLICY, LEVELS, state, at(now, lateness=0.1, items=ENOUGH - 1))
        assert found.state.level == 1
        assert found.state.calm_since_s is None
        state = found.state


@pytest.mark.parametrize(
    ("pressed", "between", "gone", "cause", "level"),
    [
        ({"temperature_c": 80.0}, {"temperature_c": 75.0}, {"temperature_c": 70.0}, Cause.HOT, 1),
        ({"battery": 0.2}, {"battery": 0.25}, {"battery": 0.3}, Cause.BATTERY, 1),
        ({"free_memory_mib": 64.0}, {"free_memory_mib": 80.0}, {"free_memory_mib": 96.0}, Cause.MEMORY, 1),
    ],
)
def test_each_pressure_has_its_band(
    pressed: dict[str, float], between: dict[str, float], gone: dict[str, float], cause: Cause, level: int
) -> None:
    found = decide(POLICY, LEVELS, State(), at(0.0, **pressed))
    assert (found.state.level, found.cause, found.state.cause) == (level, cause, cause)
    state = found.state
    for now in range(3, 40):
        found = decide(POLICY, LEVELS, state, at(now, **between))
        assert found.cause is None
        state = found.state
    assert decide(POLICY, LEVELS, State(), at(0.0, **between)).state.level == 0
    for now in range(40, 44):
        found = decide(POLICY, LEVELS, state, at(now, **gone))
        state = found.state
    assert (found.state.level, found.cause, found.state.cause) == (0, Cause.CALM, None)


def test_heat_goes_on_downwards_one_level_a_dwell() -> None:
    state = State()
    levels = []
    for now in range(6):
        state = decide(POLICY, LEVELS, state, at(now, temperature_c=85.0)).state
        levels.append(state.level)
    assert levels == [1, 1, 2, 2, 2, 2]


def test_busy_neighbours_hold_it_down() -> None:
    state = State(level=1, cause=Cause.LATE, switches=(0.0,), calm_since_s=1.0)
    found = decide(POLICY, LEVELS, state, at(50.0, lateness=0.1, load=0.95))
    assert (found.state.level, found.state.calm_since_s) == (1, None)
    assert "95%" in found.reason


def test_a_climb_that_was_too_early_makes_the_next_one_wait_longer() -> None:
    state, now, calms = State(), 0.0, []
    for _ in range(4):
        while state.level == 0:
            state, now = decide(POLICY, LEVELS[:2], state, at(now, lateness=1.5)).state, now + 0.1
        fell = now
        while state.level == 1:
            state, now = decide(POLICY, LEVELS[:2], state, at(now, lateness=0.1)).state, now + 0.1
        calms.append(round(now - fell))
    assert calms == [3, 6, 12, 24]
    now += 1000  # it has proved right
    state = decide(POLICY, LEVELS[:2], state, at(now, lateness=1.5)).state
    assert state.calm_needed_s == POLICY.calm_s


def test_the_last_switch_of_an_hour_is_kept_for_coming_back_down() -> None:
    policy = GovernorPolicy(dwell_s=1.0, calm_s=0.0, most_switches_per_hour=2)
    state = decide(policy, LEVELS, State(), at(0.0, lateness=1.5)).state
    held = decide(policy, LEVELS, state, at(10.0, lateness=0.1))
    assert held.state.level == 1
    assert "within an hour" in held.reason
    assert decide(policy, LEVELS, held.state, at(3601.0, lateness=0.1)).state.level == 0


def test_a_ladder_of_one_never_switches() -> None:
    found = decide(POLICY, LEVELS[:1], State(), at(0.0, lateness=5.0, temperature_c=99.0, battery=0.01))
    assert (found.state.level, found.cause) == (0, None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dwell_s": 0.0}, "dwell_s"),
        ({"dwell_s": float("nan")}, "finite"),
        ({"hot_c": 80.0}, "together"),
        ({"hot_c": 60.0, "cool_c": 70.0}, "cool_c <= hot_c"),
        ({"late": 0.5}, "comfortable <= late"),
        ({"late": 1.5}, "late <= 1"),
        ({"comfortable": 0.0}, "above 0"),
        ({"battery_low": 0.5}, "battery_low"),
        ({"battery_low": -0.1}, "at least 0"),
        ({"calm_s": -1.0}, "calm_s"),
        ({"calm_s": 500.0}, "most_calm_s"),
        ({"most_switches_per_hour": 1}, "at least 2"),
        ({"deadline_ms": 0.0}, "deadline_ms"),
        ({"busy": 1.5}, "at most 1"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GovernorPolicy(**wrong)  # type: ignore[arg-type]


def test_defaults_come_from_the_budget_and_the_device() -> None:
    found = policy_for(Budget(latency_p99_ms=20.0, peak_memory_mib=50.0), memory_mib=1000.0, trip_c=95.0)
    assert (found.deadline_ms, found.memory_low_mib, found.hot_c, found.cool_c) == (20.0, 50.0, 90.0, 83.0)
    silent = policy_for(Budget(), memory_mib=1000.0, trip_c=None)
    assert (silent.deadline_ms, silent.memory_low_mib, silent.hot_c) == (None, 50.0, None)
