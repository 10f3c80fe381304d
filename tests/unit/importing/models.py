"""Models that the tests of importing build for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
node = helper.make_node


def floats(*shape: int, seed: int = 0, scale: float = 0.5) -> Array:
    """Return random float32 numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    values: Mapping[str, Array] | None = None,
    kinds: Mapping[str, int] | None = None,
    opset: int = 17,
    ir: int = 8,
) -> onnx.ModelProto:
    """Wrap nodes into a model; a string in a shape is a dynamic axis, `kinds` gives types other than float."""
    kinds = kinds or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (values or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if any(each.domain == "com.microsoft" for each in nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def conv_model(**changes: Any) -> onnx.ModelProto:
    """Return x [n, 3, 8, 8] -> Conv -> Relu -> y, a model that nothing is wrong with."""
    return model_of(
        [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])],
        inputs={"x": ["n", 3, 8, 8]},
        values={"w": floats(4, 3, 3, 3), "b": floats(4)},
        **changes,
    )


def attention_model(
    *, mask: str = "none", scale: str = "scores", bias: bool = True, tokens: int | str = "t"
) -> onnx.ModelProto:
    """Return one layer of a transformer as exporters write it: x [b, t, 16] (and mask [b, t]) -> y.

    `mask` is none, padding (additive, from the mask of tokens), window (padding, and nothing further
    than 40 tokens away), where (as GPT-2 writes its causal mask) or heads (a bias for each head).
    """
    rng = np.random.default_rng(3)
    nodes: list[onnx.NodeProto] = []
    values: dict[str, Array] = {
        "cut": np.array([0, 0, 4, 4]),
        "merged": np.array([0, 0, 16]),
        "root": np.array(2.0, np.float32),
        "half": np.array(np.sqrt(0.5), np.float32),
        "one": np.array(1.0, np.float32),
        "lowest": np.array(-3.4e38, np.float32),
        "masked_axes": np.array([1, 2]),
        "wo": floats(16, 16, seed=9),
        "bo": floats(16, seed=8),
        "gain": np.ones(16, np.float32),
        "shift": floats(16, seed=10),
    }
    for index, name in enumerate("qkv"):
        values |= {f"w{name}": floats(16, 16, seed=index), f"b{name}": floats(16, seed=20 + index)}
        nodes.append(node("MatMul", ["x", f"w{name}"], [f"{name}0"]))
        if bias and name != "k":
            nodes.append(node("Add", [f"b{name}", f"{name}0"], [f"{name}1"]))
        cut = f"{name}1" if bias and name != "k" else f"{name}0"
        nodes.append(node("Reshape", [cut, "cut"], [f"{name}2"]))
        nodes.append(node("Transpose", [f"{name}2"], [f"{name}3"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))
    if scale == "both":
        nodes += [node("Mul", ["q3", "half"], ["q4"]), node("Mul", ["k3", "half"], ["k4"])]
        nodes.append(node("MatMul", ["q4", "k4"], ["scores"]))
    else:
        nodes += [node("MatMul", ["q3", "k3"], ["raw"]), node("Div", ["raw", "root"], ["scores"])]
    nodes += _masked(mask, values, rng)
    nodes += [
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "v3"], ["mixed"]),
        node("Transpose", ["mixed"], ["moved"], perm=[0, 2, 1, 3]),
        node("Reshape", ["moved", "merged"], ["attended"]),
        node("MatMul", ["attended", "wo"], ["o0"]),
        node("Add", ["o0", "bo"], ["o1"]),
        node("Add", ["x", "o1"], ["sum"]),
        node("LayerNormalization", ["sum", "gain", "shift"], ["y"], axis=-1),
    ]
    inputs: dict[str, Sequence[int | str]] = {"x": ["b", tokens, 16]}
    if mask in ("padding", "window"):
        inputs["mask"] = ["b", tokens]
    return model_of(nodes, inputs=inputs, values=values, kinds={"mask": TensorProto.INT64})


def _masked(mask: str, values: dict[str, Array], rng: np.random.Generator) -> list[onnx.NodeProto]:
    """Return the nodes between `scores` and `masked`."""
    if mask == "none":
        return [node("Identity", ["scores"], ["masked"])]
    if mask == "heads":
        values["bias_of_heads"] = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
        return [node("Add", ["scores", "bias_of_heads"], ["masked"])]
    if mask == "where":
        values["allowed"] = np.tril(np.ones((8, 8), bool))[None, None]
        return [node("Where", ["allowed", "scores", "lowest"], ["masked"])]
    padding = [
        node("Unsqueeze", ["mask", "masked_axes"], ["mask4"]),
        node("Cast", ["mask4"], ["maskf"], to=TensorProto.FLOAT),
        node("Sub", ["one", "maskf"], ["hidden"]),
        node("Mul", ["hidden", "lowest"], ["added"]),
    ]
    if mask == "padding":
        return [*padding, node("Add", ["scores", "added"], ["masked"])]
    values |= {
        "first": np.array(0, np.int64), "step": np.array(1, np.int64), "axis1": np.array(1, np.int64),
        "column": np.array([1]), "far": np.array(40, np.int64), "none": np.array(0.0, np.float32),
    }  # fmt: skip
    return [
        *padding,
        node("Shape", ["mask"], ["mask_shape"]),
        node("Gather", ["mask_shape", "axis1"], ["tokens"]),
        node("Range", ["first", "tokens", "step"], ["positions"]),
        node("Unsqueeze", ["positions", "column"], ["rows"]),
        node("Sub", ["rows", "positions"], ["apart"]),
        node("Abs", ["apart"], ["distance"]),
        node("Greater", ["distance", "far"], ["is_far"]),
        node("Where", ["is_far", "lowest", "none"], ["windowed"]),
        node("Min", ["added", "windowed"], ["both"]),
        node("Add", ["scores", "both"], ["masked"]),
    ]
