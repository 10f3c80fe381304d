"""The models a probe runs: products in three number formats, and borders of several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtimes.base import Array

_CHANNELS, _SIDE, _KERNEL = 64, 28, 3
_ROWS, _WIDTH = 64, 512

PRODUCTS = {"conv": _CHANNELS**2 * _SIDE**2 * _KERNEL**2, "matmul": _ROWS * _WIDTH**2}
"""Multiply-adds of each product: a mid-sized convolution and a transformer's MatMul."""

BORDERS = 8
BORDER_SIZES = (1 << 8, 1 << 12, 1 << 14, 1 << 16, 1 << 18)
"""Elements of the tensors whose borders are timed."""

_OPSET, _IR_VERSION = 17, 8
_SCALE, _WEIGHT_SCALE, _OUTPUT_SCALE = 0.02, 0.01, 0.5


class _Parts:
    """Nodes and initializers of a graph, each node named after its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Array) -> str:
        self.values.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def model(self, inputs: dict[str, Array], outputs: list[str]) -> onnx.ModelProto:
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "probe", declared, results, self.values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def product_model() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model that computes both products in fp32, u8 x s8 and s8 x s8, and its feeds.

    The tensors are called `fp32_conv`, `u8s8_matmul` and so on.
    """
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {
        "image": rng.standard_normal((1, _CHANNELS, _SIDE, _SIDE)).astype(np.float32),
        "rows": rng.standard_normal((_ROWS, _WIDTH)).astype(np.float32),
    }
    weights = {
        "conv": rng.integers(-127, 128, (_CHANNELS, _CHANNELS, _KERNEL, _KERNEL), dtype=np.int8),
        "matmul": rng.integers(-127, 128, (_WIDTH, _WIDTH), dtype=np.int8),
    }
    parts = _Parts()
    outputs = []
    for product, source in (("conv", "image"), ("matmul", "rows")):
        kind = "Conv" if product == "conv" else "MatMul"
        attributes = {"pads": [_KERNEL // 2] * 4} if product == "conv" else {}
        real = parts.constant(f"fp32_{product}_w", weights[product].astype(np.float32) * np.float32(_WEIGHT_SCALE))
        outputs.append(parts.node(kind, [source, real], f"fp32_{product}", **attributes))
        for signs, zero in (("u8s8", np.uint8(128)), ("s8s8", np.int8(0))):
            name = f"{signs}_{product}"
            grid = _grid(parts, f"{name}_in", _SCALE, zero)
            data = parts.node("QuantizeLinear", [source, *grid], f"{name}_in_q")
            data = parts.node("DequantizeLinear", [data, *grid], f"{name}_in_dq")
            integers = parts.constant(f"{name}_w", weights[product])
            real = parts.node(
                "DequantizeLinear", [integers, *_grid(parts, f"{name}_w", _WEIGHT_SCALE, np.int8(0))], f"{name}_w_dq"
            )
            grid = _grid(parts, f"{name}_out", _OUTPUT_SCALE, zero)
            data = parts.node(kind, [data, real], name, **attributes)
            data = parts.node("QuantizeLinear", [data, *grid], f"{name}_q")
            outputs.append(parts.node("DequantizeLinear", [data, *grid], f"{name}_dq"))
    return parts.model(feeds, outputs), feeds


def border_model(elements: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a chain of `BORDERS` borders over so many elements, and its feeds.

    Each is `quantized_I` and `restored_I`, behind a Neg that has no integer kernel: so that borders
    do not cancel out, and read what has just been written, as they do in a model.
    """
    parts = _Parts()
    feeds: dict[str, Array] = {"x": np.linspace(-1, 1, elements, dtype=np.float32)}
    data = "x"
    grid = _grid(parts, "grid", _SCALE, np.uint8(128))
    for index in range(BORDERS):
        data = parts.node("Neg", [data], f"real_{index}")
        data = parts.node("QuantizeLinear", [data, *grid], f"quantized_{index}")
        data = parts.node("DequantizeLinear", [data, *grid], f"restored_{index}")
    return parts.model(feeds, [parts.node("Neg", [data], "y")]), feeds


def _grid(parts: _Parts, name: str, scale: float, zero: np.integer) -> list[str]:
    """Add a scale and a zero point, both 0-d: of shape [1] they would block some fusions."""
    return [
        parts.constant(f"{name}_scale", np.asarray(scale, dtype=np.float32)),
        parts.constant(f"{name}_zero", np.asarray(zero)),
    ]
