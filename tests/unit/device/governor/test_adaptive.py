from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS
from edgewise.device.governor.adaptive import SWITCHES, AdaptiveRuntime
from edgewise.device.governor.decide import ENOUGH, Cause, Level
from edgewise.device.governor.joining import Joined
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.ready import Ready, of_session
from edgewise.device.session import BoundSession

STATE = (("state", "sum"),)
ONE = {"x": np.ones((1, 2), np.float32)}


def ready(folder: Path, name: str, times: float) -> Ready:
    """Return a model with sum = state + x, out = times * sum."""
    info = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 2]) for each in ("x", "state", "sum", "out")]
    nodes = [helper.make_node("Add", ["x", "state"], ["sum"]), helper.make_node("Mul", ["sum", "times"], ["out"])]
    constant = helper.make_tensor("times", TensorProto.FLOAT, [], [times])
    graph = helper.make_graph(nodes, "adds", info[:2], info[2:], [constant])
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return of_session(BoundSession(path, threads=1, shapes={}, state=STATE), variant=name)


class Clock:
    """An item every 100 ms that takes `takes_ms`: looked at when it begins, when it is done, and by the governor."""

    def __init__(self) -> None:
        self.takes_ms = 0.0
        self._looks = 0

    def __call__(self) -> int:
        item, look = divmod(self._looks, 3)
        self._looks += 1
        return item * 10**8 + bool(look) * int(self.takes_ms * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runtime(tmp_path: Path, clock: Clock) -> Iterator[AdaptiveRuntime]:
    members = (ready(tmp_path, "big", 10.0), ready(tmp_path, "small", 100.0))
    levels = (Level(variant="big", latency_ms=8.0), Level(variant="small", latency_ms=2.0))
    policy = GovernorPolicy(dwell_s=1.0, calm_s=2.0, deadline_ms=10.0)
    found = AdaptiveRuntime(members, Joined(levels, ()), policy=policy, clock=clock)
    yield found
    found.close()


def answers(runtime: AdaptiveRuntime, clock: Clock, *, takes_ms: float, count: int) -> list[tuple[str | None, float]]:
    """Return variant and output of so many inferences."""
    clock.takes_ms = takes_ms
    found = (runtime.infer(ONE) for _ in range(count))
    return [(each.outcome.variant, float(each.outputs["out"][0, 0])) for each in found]


def test_it_goes_down_between_two_items_and_comes_back(runtime: AdaptiveRuntime, clock: Clock) -> None:
    calm = answers(runtime, clock, takes_ms=5.0, count=10)
    assert {name for name, _ in calm} == {"big"}
    pressed = [name for name, _ in answers(runtime, clock, takes_ms=9.5, count=5)]
    assert pressed == ["big", "big", "small", "small", "small"]  # two late items, not one
    assert runtime.reason.startswith("items need 95%")
    eased = [name for name, _ in answers(runtime, clock, takes_ms=1.0, count=ENOUGH + 30)]
    assert eased[0] == "small"
    assert eased[-1] == "big"
    assert runtime.reason == ""
    down, up = runtime.switches
    assert (down.before, down.after, down.cause) == ("big", "small", Cause.LATE)
    assert (up.before, up.after, up.cause) == ("small", "big", Cause.CALM)


def test_everything_of_a_variant_is_swapped_at_once(runtime: AdaptiveRuntime, clock: Clock) -> None:
    seen = answers(runtime, clock, takes_ms=9.5, count=4)
    # The state of the stream goes on: sums are 1, 2, 3, 4 whoever answers.
    assert seen == [("big", 10.0), ("big", 20.0), ("small", 300.0), ("small", 400.0)]
    assert runtime.ready is runtime.members[1]
    found = runtime.report()
    assert found["big"].outcomes == {OutcomeKind.LOCAL: 2}
    assert found["big"].counters == {"energy.unavailable": 2}
    assert found["small"].outcomes == {OutcomeKind.LOCAL_DEGRADED: 2}
    assert found["small"].counters == {SWITCHES: 1, "governor.switch.late": 1, "energy.unavailable": 2}
    assert {name: each.histograms[LATENCY_MS].count for name, each in found.items()} == {"big": 2, "small": 2}
    assert not any(any(each) for each in runtime.report().values())


def test_inputs_that_are_refused_say_nothing_about_lateness(runtime: AdaptiveRuntime, clock: Clock) -> None:
    clock.takes_ms = 20.0
    for _ in range(20):
        assert runtime.infer({}).outcome.kind is OutcomeKind.REFUSED
    assert not runtime.switches
