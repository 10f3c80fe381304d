from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.device.governor.joining import LEAST_ROUNDS, join, times_ms
from edgewise.device.ready import Ready, of_session
from edgewise.device.session import BoundSession

ROUNDS = 30


def ready(folder: Path, name: str) -> Ready:
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 2]) for each in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return of_session(BoundSession(path, threads=1, shapes={}), variant=name)


@pytest.fixture
def members(tmp_path: Path) -> tuple[Ready, ...]:
    return tuple(ready(tmp_path, name) for name in ("wanted", "a", "b"))


def around(middle: float, seed: int) -> Sequence[float]:
    return [float(each) for each in middle * np.random.default_rng(seed).uniform(0.8, 1.25, ROUNDS)]


def test_only_the_faster_join_and_the_others_are_told_why(members: tuple[Ready, ...]) -> None:
    found = join(members, {"wanted": around(10, 0), "a": around(9.9, 1), "b": around(5, 2)})
    assert [each.variant for each in found.levels] == ["wanted", "b"]
    (declined,) = found.declined
    assert declined.variant == "a"
    assert "not faster than wanted here" in declined.reason
    assert "no meter" in declined.reason


def test_chance_is_no_reason_to_join(members: tuple[Ready, ...]) -> None:
    lucky = [9.0] * 19 + [11.0] * 11  # faster in 19 of 30 rounds: p = 0.1
    surely = [9.0] * 22 + [11.0] * 8  # in 22: p = 0.008
    found = join(members, {"wanted": [10.0] * 30, "a": lucky, "b": surely})
    assert [each.variant for each in found.levels] == ["wanted", "b"]


def test_a_slower_one_joins_where_a_meter_says_that_it_is_cheaper(members: tuple[Ready, ...]) -> None:
    times = {"wanted": [10.0] * 30, "a": [12.0] * 30, "b": [12.0] * 30}
    found = join(members, times, energies={"wanted": 50.0, "a": 20.0, "b": 49.0})
    assert [(each.variant, each.energy_mj) for each in found.levels] == [("wanted", 50.0), ("a", 20.0)]
    assert "nor does it take less energy" in found.declined[0].reason
    assert [each.variant for each in join(members, times, energies={"a": 20.0}).levels] == ["wanted"]


def test_the_ladder_goes_from_slow_to_fast_and_fits_into_memory(members: tuple[Ready, ...]) -> None:
    times = {"wanted": [10.0] * 30, "a": [2.0] * 30, "b": [5.0] * 30}
    memory = {"wanted": 40.0, "a": 10.0, "b": 20.0}
    assert [each.variant for each in join(members, times, memory=memory).levels] == ["wanted", "b", "a"]
    found = join(members, times, memory=memory, most_memory_mib=60.0)
    assert [each.variant for each in found.levels] == ["wanted", "a"]
    assert "60 MiB" in found.declined[0].reason


def test_executions_alternate_and_end_in_time(members: tuple[Ready, ...]) -> None:
    ticks = iter(range(0, 10**12, 250_000_000))  # a quarter of a second each
    found = times_ms(members, clock=lambda: next(ticks))
    assert {len(each) for each in found.values()} == {LEAST_ROUNDS}
    assert set(found["a"]) == {250.0}
