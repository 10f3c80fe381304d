"""Small ONNX models that the tests build for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    values: dict[str, Array] | None = None,
) -> onnx.ModelProto:
    """Wrap nodes into a model of float inputs and outputs; a string in a shape is a dynamic axis."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (values or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def serialised(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString()
    return data


def conv_relu_add(*, batch: int | str = 1) -> onnx.ModelProto:
    """Two convolutions with a residual Add: `first`, `second`, `sum`, `relu`, then a pool to `y`."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["first"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["first_relu"], name="first_relu"),
        helper.make_node("Conv", ["first_relu", "w2", "b2"], ["second"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["second", "first_relu"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["relu"], name="relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["y"], name="y"),
    ]
    values = {
        "w1": rng.standard_normal((32, 3, 3, 3)).astype(np.float32) * 0.2,
        "b1": rng.standard_normal(32).astype(np.float32),
        "w2": rng.standard_normal((32, 32, 3, 3)).astype(np.float32) * 0.1,
        "b2": rng.standard_normal(32).astype(np.float32),
    }
    return model_of(nodes, inputs={"x": [batch, 3, 16, 16]}, outputs=["y"], values=values)


def quantized_conv() -> onnx.ModelProto:
    """A convolution between Q/DQ pairs, which every runtime here fuses into an integer kernel."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["x_q"], name="x_q"),
        helper.make_node("DequantizeLinear", ["x_q", "xs", "zero"], ["x_dq"], name="x_dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_dq"], name="w_dq", axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["b_dq"], name="b_dq", axis=0),
        helper.make_node("Conv", ["x_dq", "w_dq", "b_dq"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["conv", "ys", "zero"], ["y_q"], name="y_q"),
        helper.make_node("DequantizeLinear", ["y_q", "ys", "zero"], ["y"], name="y"),
    ]
    weight_scales = np.full(32, 0.01, np.float32)
    values: dict[str, Array] = {
        "xs": np.array(0.02, np.float32),
        "ys": np.array(0.5, np.float32),
        "zero": np.array(128, np.uint8),
        "w": rng.integers(-127, 128, (32, 16, 3, 3), dtype=np.int8),
        "ws": weight_scales,
        "wz": np.zeros(32, np.int8),
        "b": rng.integers(-1000, 1000, 32, dtype=np.int32),
        "bs": weight_scales * np.float32(0.02),
        "bz": np.zeros(32, np.int32),
    }
    return model_of(nodes, inputs={"x": [1, 16, 12, 12]}, outputs=["y"], values=values)


def branching() -> onnx.ModelProto:
    """An If whose taken branch holds a Neg; the other an Abs."""
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branches = {
        f"{side}_branch": helper.make_graph(
            [helper.make_node(kind, ["x"], ["inner"], name=f"inner_{kind}")], side, [], [output]
        )
        for side, kind in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], name="total", keepdims=0),
        helper.make_node("Greater", ["total", "limit"], ["positive"], name="positive"),
        helper.make_node("If", ["positive"], ["y"], name="choice", **branches),
    ]
    return model_of(nodes, inputs={"x": [4]}, outputs=["y"], values={"limit": np.array(0, np.float32)})


def heavy(*, megabytes: int) -> onnx.ModelProto:
    """A MatMul with so many MB (10**6 bytes x 1.049) of weights."""
    weights = np.ones((1024, megabytes * 256), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="y")
    return model_of([node], inputs={"x": [1, 1024]}, outputs=["y"], values={"w": weights})
