"""The page is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.bundle.read import Bundle
from tests.unit.bundle.staged import joined

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "pipeline.md"


def detector(path: Path) -> Path:
    """Return a model whose state adds up what it hears, and which wakes above 0.5."""
    shapes = {"x": [1, 4], "h_in": [1, 4], "h_out": [1, 4], "features": [1, 4], "wake": [1]}
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Add", ["x", "h_in"], ["h_out"]),
        helper.make_node("Identity", ["h_out"], ["features"]),
        helper.make_node("ReduceMax", ["h_out"], ["wake"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "detector", [info["x"], info["h_in"]], [info["wake"], info["features"], info["h_out"]]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def recogniser(path: Path) -> Path:
    """Return a model with four inputs and three classes; the third is the sum."""
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    out = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])]
    weights = numpy_helper.from_array(np.array([[0, 0, 1]] * 4, np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["scores"])], "recogniser", info, out, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_page_does_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, use, watch, one = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {
        "detector_path": detector(tmp_path / "detector.onnx"),
        "recogniser_path": recogniser(tmp_path / "recogniser.onnx"),
        "samples": np.full(4, 10_000, np.int16),
    }
    use = use.replace("deadline_ms=2000", "deadline_ms=30_000")  # a machine that runs tests may be busy
    exec(build, names)  # noqa: S102 - our own page
    exec(use, names)  # noqa: S102 - as above
    exec(use, names)  # noqa: S102 - as above
    exec(watch, names)  # noqa: S102 - as above
    monkeypatch.chdir(tmp_path)
    with Bundle.open(joined(tmp_path)[0]) as bundle:
        bundle.extract(tmp_path / "voice")
    printed = capsys.readouterr().out
    exec(one.replace("2000", "30_000"), {})  # noqa: S102 - as above
    assert capsys.readouterr().out.splitlines() == [
        "out {'listener.level': array([0.], dtype=float32)}",
        "listener fp32 here 1 0",
        "head fp32 here 0 1",
    ]
    first, second, *rest = printed.splitlines()
    assert first == "dropped cancelled decide"  # a third of full scale is no wake word
    assert second == "command 2"  # two of them are: the state was kept
    assert rest == ["1 {('decide', 'cancelled'): 1}", "Counts(starts=1, crashes=0, hangs=0)"]
