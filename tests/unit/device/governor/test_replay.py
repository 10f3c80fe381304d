"""The governor over recorded pressure.

`traces/hog-and-half.csv` was recorded by `benchmarks/governor.py --record` on a virtual machine with two cores:
MobileNetV2 in fp32 and int8 (ONNX Runtime, one thread), each alone, under a hog on every core and then stopped half
of the time in turns of 20 ms. Misses were not kept by that version: a frame counts as missed where it took all of its
deadline but 1.4 ms, or less than the variant ever takes (it began late and was cut). That finds 1218 of 1420 misses of
fp32 and 47 of 73 of int8. `traces/busy-machine.csv` is the same under a hog and on a core that is
taken for 2.4 of every 4 ms, while eight other processes worked on the machine: both variants wait at each wake-up.

No machine with a thermal sensor or a battery was at hand: their figures come from models.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from edgewise.device.governor.decide import Cause, Level, Reading, State, decide
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.governor.replay import Replayed, Trace, parse, replay

TRACE = Path(__file__).parent / "traces" / "hog-and-half.csv"
BUSY = TRACE.with_name("busy-machine.csv")
POLICY = GovernorPolicy()


@pytest.fixture(scope="module")
def trace() -> Trace:
    return parse(TRACE.read_text(encoding="ascii"))


@pytest.fixture(scope="module")
def found(trace: Trace) -> Replayed:
    return replay(trace, POLICY)


def seconds(trace: Trace, found: Replayed) -> list[float]:
    """Return when it switched."""
    return [each.frame * trace.period_ms / 1e3 for each in found.switches]


def test_recorded_pressure_is_met_with_few_misses_and_few_switches(trace: Trace, found: Replayed) -> None:
    first, hog, *_ = (each.end for each in trace.phases)
    assert sum(trace.missed(0)) > 0.25 * len(trace.frames)
    assert sum(found.missed[first:hog]) < 0.01 * (hog - first)  # here the lower variant can
    # Being stopped for 10 ms is too long for it too; a switch is made after two items that were late.
    assert sum(found.missed) <= sum(trace.missed(1)) + 2 * len(found.switches)
    assert all(later - earlier >= POLICY.dwell_s for earlier, later in pairwise(seconds(trace, found)))
    assert len(found.switches) <= 6


def test_it_returns_in_every_calm(trace: Trace, found: Replayed) -> None:
    first, hog, second, half, _ = (each.end for each in trace.phases)
    assert set(found.levels[: first - 1]) == {0}
    assert set(found.levels[first + 100 : hog]) == {1}
    assert found.levels[second - 2] == 0
    assert found.levels[half - 1] == 1
    assert 0 in found.levels[half:]  # fp32 alone was late again at the end of this recording


def test_waiting_at_wake_ups_does_not_keep_it_down() -> None:
    trace = parse(BUSY.read_text(encoding="ascii"))
    found = replay(trace, POLICY)
    ends = [0, *(each.end for each in trace.phases)]
    waits = [frame.load for frame in trace.frames[: ends[1]] if frame.load is not None]
    assert min(waits) > 0.3  # in calm
    for phase, begin, end in zip(trace.phases, ends, ends[1:], strict=False):
        assert sum(trace.missed(1)[begin:end]) < 0.01 * (end - begin)  # the lower variant can
        assert sum(found.missed[begin:end]) < 0.01 * (end - begin)
        assert phase.name != "calm" or found.levels[end - 1] == 0
    assert sum(trace.missed(0)) > 0.1 * len(trace.frames)
    assert all(later - earlier >= POLICY.dwell_s for earlier, later in pairwise(seconds(trace, found)))


def test_heat_is_brought_below_the_limit_and_kept_there() -> None:
    """First-order model: tau dT/dt = ambient + R P - T, 60 s, 4 K/W, 12 W for the wanted variant and 6 W below it."""
    policy = GovernorPolicy(hot_c=80.0, cool_c=72.0)
    levels = (Level(variant="fp32", latency_ms=9.0), Level(variant="int8", latency_ms=4.0))
    state, heat_c, seen, switches = State(), 40.0, [], []
    for second in range(1800):
        ambient_c = 45.0 if second < 1200 else 20.0
        heat_c += (ambient_c + 4.0 * (12.0, 6.0)[state.level] - heat_c) / 60.0
        decision = decide(policy, levels, state, Reading(at_s=float(second), temperature_c=heat_c))
        state = decision.state
        switches += [(second, decision.cause)] if decision.cause else []
        seen.append(heat_c)
    assert max(seen) < 81.0
    assert switches[0][1] is Cause.HOT
    assert all(later - earlier >= policy.dwell_s for (earlier, _), (later, _) in pairwise(switches))
    assert state.level == 0  # 20 degrees around it are no reason any more


def test_a_battery_that_runs_down_and_is_charged() -> None:
    """One per cent a minute; on mains the gauge is not looked at."""
    levels = (Level(variant="fp32", latency_ms=9.0), Level(variant="int8", latency_ms=4.0))
    state, at = State(), {}
    for minute in range(120):
        left = None if minute >= 90 else 1.0 - minute / 100
        state = decide(POLICY, levels, state, Reading(at_s=60.0 * minute, battery=left)).state
        at[minute] = state.level
    assert (at[79], at[80], at[89], at[95]) == (0, 1, 1, 0)
