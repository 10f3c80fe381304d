"""An execution that is under way is ended at its deadline."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device import Runtime
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.runtime import CUT
from edgewise.errors import ConfigError

SIZE, STEPS = 256, 40_000
"""Products of 256 x 256 matrices: many seconds in all, about a millisecond each."""
INPUTS = {"x": np.zeros((SIZE, SIZE), np.float32)}
STOP = Conservative(outputs={"y": np.ones((SIZE, SIZE)).tolist()})


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that runs as many products as its input `steps` says."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "w"], ["next"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "", "x"], ["y"], body=body)],
        "slow",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIZE, SIZE]),
            helper.make_tensor_value_info("steps", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIZE, SIZE])],
        [helper.make_tensor("w", TensorProto.FLOAT, [SIZE, SIZE], np.zeros(SIZE * SIZE, np.float32))],
    )
    path = tmp_path_factory.mktemp("slow") / "slow.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def steps(count: int) -> dict[str, np.ndarray]:
    return {**INPUTS, "steps": np.array(count, np.int64)}


def test_a_running_execution_is_cut_and_the_next_one_is_whole(slow: Path) -> None:
    runtime = Runtime.open(slow)
    outcome = runtime.infer(steps(STEPS), deadline_ms=60.0).outcome
    assert (outcome.kind, outcome.reason) == (OutcomeKind.REFUSED, CUT)
    again = runtime.infer(steps(2), deadline_ms=60_000.0)
    assert again.outcome.kind is OutcomeKind.LOCAL
    assert again.outputs["y"].shape == (SIZE, SIZE)
    assert runtime.infer(steps(2)).outcome.kind is OutcomeKind.LOCAL


def test_deadlines_that_never_come_cut_nothing(slow: Path) -> None:
    runtime = Runtime.open(slow)
    for deadline_ms in (math.inf, 1e300, 60_000.0, 30_000.0, 90_000.0):
        assert runtime.infer(steps(1), deadline_ms=deadline_ms).outcome.kind is OutcomeKind.LOCAL
    # One that is due before the watchdog would wake for the last.
    assert runtime.infer(steps(STEPS), deadline_ms=40.0).outcome.reason == CUT


def test_what_was_declared_is_given_where_the_model_is_cut(slow: Path) -> None:
    runtime = Runtime.open(slow, fallback=FallbackOptions(conservative=STOP, reserve_ms=200.0))
    answer = runtime.infer(steps(STEPS), deadline_ms=2000.0)
    assert (answer.outcome.kind, answer.outcome.reason) == (OutcomeKind.CONSERVATIVE, CUT)
    assert answer.outcome.slack_ms is not None
    assert answer.outcome.slack_ms > 0  # cut 200 ms before, between two products of about a millisecond
    assert (answer.outputs["y"] == 1).all()
    assert not answer.outputs["y"].flags.writeable
    assert answer.outcome.variant is None


def test_a_closed_runtime_leaves_no_thread(slow: Path) -> None:
    before = set(threading.enumerate())  # some may be those of other tests' runtimes, about to end
    runtime = Runtime.open(slow)
    runtime.infer(steps(1), deadline_ms=60_000.0)
    (mine,) = set(threading.enumerate()) - before
    assert mine.name == "edgewise-watchdog"
    del runtime
    mine.join(10.0)
    assert not mine.is_alive()


@pytest.mark.parametrize(
    "conservative",
    [
        Conservative(),
        Conservative(label="stop", outputs={"y": [[1.0]]}),
        Conservative(label="stop"),
        Conservative(outputs={}),
        Conservative(outputs={"y": [[1.0]]}),
        Conservative(outputs={"y": "stop"}),
        Conservative(outputs={"y": [[1.0], [1.0, 2.0]]}),
        Conservative(outputs={"y": np.full((SIZE, SIZE), np.nan).tolist()}),
        Conservative(outputs={"y": np.full((SIZE, SIZE), 1e300).tolist()}),
        Conservative(outputs={"z": np.ones((SIZE, SIZE)).tolist()}),
    ],
)
def test_a_conservative_answer_that_does_not_fit_is_refused(slow: Path, conservative: Conservative) -> None:
    with pytest.raises(ConfigError):
        Runtime.open(slow, fallback=FallbackOptions(conservative=conservative))


def test_a_run_does_not_look_for_an_option_by_way_of_an_exception(slow: Path) -> None:
    """ONNX Runtime's Python layer asks for `gpu_graph_id` at every run that has options: 30 us where it is missing."""
    assert Runtime.open(slow).session._options.get_run_config_entry("gpu_graph_id") == "-1"
