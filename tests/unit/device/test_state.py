from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.device.session import BoundSession
from edgewise.errors import ExecutionError, ModelError

SHAPES = {"past": (1, None, 2), "mask": (1, None)}
PAIRS = [("past", "present"), ("bias", "bias")]


def decoder(path: Path, *, sign: float = 1.0) -> Path:
    """Return a model with a cache: present = past and x; out = sign (sum of the present, where the mask is) + bias."""
    shapes: dict[str, list[int | str]] = {"x": [1, 1, 2], "mask": [1, "total"], "past": [1, "t", 2], "bias": [2]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [
        helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2]),
        helper.make_tensor_value_info("present", TensorProto.FLOAT, [1, "total", 2]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    along = helper.make_tensor("along", TensorProto.INT64, [1], [1])
    factor = helper.make_tensor("sign", TensorProto.FLOAT, [1], [sign])
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["present"], axis=1),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Mul", ["present", "wide"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "along"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "sign"], ["signed"]),
        helper.make_node("Add", ["signed", "bias"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, [axes, along, factor])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def opened(path: Path, *, sign: float = 1.0) -> BoundSession:
    return BoundSession(decoder(path, sign=sign), threads=1, shapes=SHAPES, state=PAIRS)


def step(session: BoundSession, value: float, *, length: int) -> list[float]:
    feeds = {"x": np.full((1, 1, 2), value, np.float32), "mask": np.ones((1, length), np.float32)}
    outputs = session.run(feeds)
    assert outputs.keys() == {"out"}  # the cache stays inside
    return [float(each) for each in outputs["out"][0]]


def test_a_cache_grows_by_one_at_each_step_and_is_empty_after_a_reset(tmp_path: Path) -> None:
    session = opened(tmp_path / "m.onnx")
    assert session.given == {"x", "mask"}
    assert session.outputs == {"out": ((1, 2), np.dtype("float32"))}
    for _ in range(2):
        assert [step(session, 10.0**at, length=at + 1)[0] for at in range(5)] == [1.0, 11.0, 111.0, 1111.0, 11111.0]
        session.reset()


def test_what_fails_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    session = opened(tmp_path / "m.onnx")
    step(session, 1.0, length=1)
    with pytest.raises(ExecutionError):
        step(session, 1.0, length=7)  # no mask for a cache of 2
    session.stop()
    with pytest.raises(ExecutionError):
        step(session, 1.0, length=2)
    session.allow()
    assert step(session, 1.0, length=2)[0] == 2.0


def test_a_stream_begins_with_the_states_that_are_given(tmp_path: Path) -> None:
    session = opened(tmp_path / "m.onnx")
    past = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    session.set_state({"past": past, "bias": np.array([100.0, 200.0], np.float32)})
    past[:] = 99.0  # it was copied
    assert step(session, 1.0, length=4) == [0 + 2 + 4 + 1 + 100.0, 1 + 3 + 5 + 1 + 200.0]
    assert step(session, 1.0, length=5)[0] == 108.0
    for wrong in ({"x": past}, {"past": past[0]}, {"past": past.astype(np.float64)}, {"bias": past}):
        with pytest.raises(ExecutionError):
            session.set_state(wrong)
    assert step(session, 1.0, length=6)[0] == 109.0


def test_another_variant_goes_on_with_the_stream_where_its_states_have_the_same_form(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a.onnx"), opened(tmp_path / "b.onnx", sign=-1.0)
    step(second, 5.0, length=1)  # of an older stream
    first.set_state({"bias": np.full(2, 0.5, np.float32)})
    step(first, 1.0, length=1)
    step(first, 2.0, length=2)
    assert second.take_state(first)
    assert step(second, 4.0, length=3)[0] == -6.5
    assert first.take_state(second)
    assert step(first, 8.0, length=4)[0] == 15.5
    fresh = opened(tmp_path / "c.onnx")
    assert first.take_state(fresh)
    assert step(first, 1.0, length=1)[0] == 1.0

    other = BoundSession(
        decoder(tmp_path / "d.onnx"), threads=1, shapes={**SHAPES, "past": (1, 2, 2)}, state=[("bias", "bias")]
    )
    assert not other.take_state(first)


def test_a_state_of_a_fixed_size_must_keep_it(tmp_path: Path) -> None:
    shapes = {**SHAPES, "past": (1, 2, 2)}
    session = BoundSession(decoder(tmp_path / "m.onnx"), threads=1, shapes=shapes, state=PAIRS)
    with pytest.raises(ExecutionError, match="'past' would become"):
        session.run({"x": np.ones((1, 1, 2), np.float32), "mask": np.ones((1, 3), np.float32)})
    for pairs in ([("past", "out")], [("bias", "present")], [("nothing", "present")]):
        with pytest.raises(ModelError):
            BoundSession(tmp_path / "m.onnx", threads=1, shapes=SHAPES, state=pairs)


def test_an_output_of_another_size_each_time_is_whole(tmp_path: Path) -> None:
    session = BoundSession(decoder(tmp_path / "m.onnx"), threads=1, shapes=SHAPES, state=[])
    for length in (3, 1, 4):
        feeds = {
            "x": np.ones((1, 1, 2), np.float32),
            "mask": np.ones((1, length), np.float32),
            "past": np.zeros((1, length - 1, 2), np.float32),
            "bias": np.zeros(2, np.float32),
        }
        assert session.run(feeds)["present"].shape == (1, length, 2)
