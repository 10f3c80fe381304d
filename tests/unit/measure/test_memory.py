from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.contracts.target import RuntimeName
from edgewise.errors import ExecutionError, WorkerError
from edgewise.forge.measure import memory
from edgewise.forge.measure.memory import measure_memory
from edgewise.runtimes import available
from tests.unit.runtimes.models import conv_relu_add, heavy


def test_the_weights_of_a_heavy_model_are_seen(tmp_path: Path) -> None:
    ballast = np.ones(200 << 20, np.uint8)  # what this process holds must not count
    model = tmp_path / "heavy.onnx"
    onnx.save(heavy(megabytes=64), str(model))
    found = measure_memory(model, [{"x": np.ones((1, 1024), np.float32)}])
    assert 60 < found.resident_mib < 200
    assert found.resident_mib <= found.load_peak_mib <= found.peak_mib < found.process_mib
    assert found.peak_mib < 260
    assert ballast[0] == 1


def test_activations_count_as_arena(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(conv_relu_add(batch="n"), str(model))
    small, large = (measure_memory(model, [{"x": np.ones((batch, 3, 16, 16), np.float32)}]) for batch in (1, 2000))
    # 2,000 x 32 x 16 x 16 floats are 62 MiB an activation.
    assert large.arena_mib > small.arena_mib + 60
    assert large.peak_mib > small.peak_mib + 60
    assert abs(large.resident_mib - small.resident_mib) < 30


@pytest.mark.skipif(RuntimeName.OPENVINO not in available(), reason="openvino is not installed")
def test_any_runtime_can_be_measured(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(conv_relu_add(), str(model))
    feeds = [{"x": np.ones((1, 3, 16, 16), np.float32)}]
    assert measure_memory(model, feeds, runtime=RuntimeName.OPENVINO).peak_mib > 0


def test_input_names_may_be_any_text(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Add", ["file", "a/b:0 ü"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "names",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in node.input],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    feed = {name: np.ones(1, np.float32) for name in node.input}
    assert measure_memory(tmp_path / "model.onnx", [feed, feed]).process_mib > 0


def test_a_model_that_is_refused_is_no_crash(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"nonsense")
    with pytest.raises(ExecutionError, match="could not load the model"):
        measure_memory(model, [])


def test_a_child_that_hangs_or_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(memory, "_CHILD", child)
    child.write_text("import time; time.sleep(60)", encoding="ascii")
    with pytest.raises(WorkerError, match=r"more than 0\.5 s"):
        measure_memory(tmp_path / "model.onnx", [], timeout_s=0.5)
    child.write_text("import sys; sys.exit('out of luck')", encoding="ascii")
    with pytest.raises(WorkerError, match="out of luck"):
        measure_memory(tmp_path / "model.onnx", [])
