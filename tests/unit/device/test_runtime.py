from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.bundle.tensors import place_arrays
from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.manifest import GoldenOutput
from edgewise.contracts.outcome import OutcomeKind
from edgewise.device import Runtime
from edgewise.device.bundled import _compare
from edgewise.device.meter import LatencyMeter
from edgewise.errors import BundleError, ExecutionError, ModelError

ONE = {"x": np.ones((1, 2), np.float32)}


def saved(folder: Path, *, batch: int | str = 1) -> Path:
    """Return a model with sum = state + x, out = 2 sum."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in ("x", "state", "sum", "out")]
    nodes = [helper.make_node("Add", ["x", "state"], ["sum"]), helper.make_node("Add", ["sum", "sum"], ["out"])]
    graph = helper.make_graph(nodes, "adds", info[:2], info[2:])
    path = folder / "adds.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_inputs_reach_the_model_and_state_is_kept_until_reset(tmp_path: Path) -> None:
    runtime = Runtime.open(saved(tmp_path), state=[("state", "sum")])
    seen = [float(runtime.infer(ONE).outputs["out"][0, 0]) for _ in range(3)]
    assert seen == [2.0, 4.0, 6.0]
    runtime.session.reset()
    assert float(runtime.infer(ONE).outputs["out"][0, 0]) == 2.0


def test_outputs_are_the_same_memory_each_time_and_cannot_be_written(tmp_path: Path) -> None:
    runtime = Runtime.open(saved(tmp_path), state=[("state", "sum")])
    first, second = (runtime.infer(ONE).outputs["out"] for _ in range(2))
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_wrong_inputs_are_refused_and_leave_the_state_alone(tmp_path: Path) -> None:
    runtime = Runtime.open(saved(tmp_path), state=[("state", "sum")])
    runtime.infer(ONE)
    for wrong in ({}, {"x": np.ones((2, 2), np.float32)}, {"x": np.ones((1, 2))}, {**ONE, "state": ONE["x"]}):
        answer = runtime.infer(wrong)
        assert answer.outcome.kind is OutcomeKind.REFUSED
        assert answer.outcome.reason
        assert not answer.outputs
    assert float(runtime.infer(ONE).outputs["out"][0, 0]) == 4.0
    assert runtime.latency.drain().count == 2


def test_slack_is_what_the_clock_leaves_and_a_late_result_is_not_given(tmp_path: Path) -> None:
    opened = Runtime.open(saved(tmp_path), state=[("state", "sum")])
    ticks = iter([0, 3_000_000, 10_000_000, 18_000_000, 20_000_000])
    runtime = Runtime(opened.ready, clock=lambda: next(ticks))
    in_time, late = (runtime.infer(ONE, deadline_ms=5.0) for _ in range(2))
    assert (in_time.outcome.slack_ms, in_time.outcome.reason) == (2.0, "")
    assert in_time.outcome.kind is OutcomeKind.LOCAL
    assert (late.outcome.slack_ms, late.outcome.reason) == (-3.0, "late")
    assert (late.outcome.kind, late.outputs, late.outcome.variant) == (OutcomeKind.REFUSED, {}, None)
    assert runtime.infer(ONE, deadline_ms=0.0).outcome.kind is OutcomeKind.REFUSED
    assert runtime.latency.drain() == histogram_of([3.0])
    assert runtime.tally.drain() == ({OutcomeKind.LOCAL: 1, OutcomeKind.REFUSED: 2}, {})
    assert runtime.tally.drain() == ({}, {})


def test_open_sizes_must_be_given(tmp_path: Path) -> None:
    model = saved(tmp_path, batch="n")
    with pytest.raises(ModelError, match="'x'"):
        Runtime.open(model)
    runtime = Runtime.open(model, shapes={"x": (3, 2), "state": (3, 2)})
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(runtime.infer({"x": x, "state": x}).outputs["out"], 4 * x)
    with pytest.raises(ModelError):
        Runtime.open(model, shapes={"x": (3, 5), "state": (3, 2)})


def test_a_state_without_a_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        Runtime.open(saved(tmp_path), state=[("state", "nothing")])


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Runtime.open(tmp_path)


@pytest.mark.parametrize("off", [0.2, np.nan])
def test_a_golden_output_beyond_its_tolerance_is_refused(off: float) -> None:
    (place,), data = place_arrays([("out", np.ones((1, 2), np.float32))])
    golden = GoldenOutput(tensor=place, tolerance=0.1)
    _compare(np.full((1, 2), 1.05, np.float32), golden, data, "v")
    with pytest.raises(ExecutionError, match="golden"):
        _compare(np.array([[1.0, 1.0 + off]], np.float32), golden, data, "v")
    with pytest.raises(ExecutionError, match="golden"):
        _compare(np.ones((2, 2), np.float32), golden, data, "v")


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 2500])
def test_a_drained_meter_holds_every_latency_once(count: int) -> None:
    meter = LatencyMeter()
    values = [0.1 + at / 7 for at in range(count)]
    for value in values:
        meter.record(value)
    assert meter.drain() == histogram_of(values)
    assert meter.drain().count == 0
