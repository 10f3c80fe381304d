"""Models that take as long as their input says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _saved(path: Path, graph: onnx.GraphProto) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def counting(path: Path) -> Path:
    """Return a model that counts to `n`, one operator after another, and adds up its calls in `total`."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["at", "one"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("at", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Loop", ["count", "", "state"], ["total"], body=body),
        ],
        "counting",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, [1])],
    )
    return _saved(path, graph)


def hanging(path: Path) -> Path:
    """Return a model whose one operator compares all of `n` boxes with each other: nothing stops it in between."""
    constants: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.array(0, np.int64),
        "step": np.array(1, np.int64),
        "size": np.array([[0.0, 0.0, 0.5, 1.0]], np.float32),
        "shift": np.array([[1.0, 0.0, 1.0, 0.0]], np.float32),
        "column": np.array([-1, 1], np.int64),
        "batch": np.array([0], np.int64),
        "row": np.array([1, 1, -1], np.int64),
        "most": np.array([1 << 30], np.int64),
        "threshold": np.array([0.5], np.float32),
        "first": np.array([0], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Range", ["zero", "count", "step"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["numbers", "column"], ["places"]),
            helper.make_node("Mul", ["places", "shift"], ["moved"]),
            helper.make_node("Add", ["moved", "size"], ["flat"]),
            helper.make_node("Unsqueeze", ["flat", "batch"], ["boxes"]),
            helper.make_node("Reshape", ["numbers", "row"], ["scores"]),
            helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "threshold"], ["kept"]),
            helper.make_node("Shape", ["kept"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["found"]),
        ],
        "hanging",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("found", TensorProto.INT64, [1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _saved(path, graph)


def widening(path: Path) -> Path:
    """Return a model that makes `n` zeros."""
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["n"], ["zeros"])],
        "widening",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["m"])],
    )
    return _saved(path, graph)


def number(n: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return `n` as the models take it."""
    return {"n": np.array([n], np.int64)}
