"""Fold what scales and shifts channels into the weights before it: batch norms, Mul, Div, Add, Sub.

ONNX Runtime folds a good part of these itself, behind convolutions. What it leaves (transposed
convolutions, fully connected layers, forms that exporters of TensorFlow write) is folded here, for
as a node of its own it keeps an integer kernel from being fused.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgewise.forge.graph import Graph, attribute

Array = NDArray[Any]

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Of the output channels in the weight; a transposed Gemm has them on 0."""


class _Affine(msgspec.Struct, frozen=True):
    """`scale * x + shift`, each a scalar or one number per output channel, in float64."""

    scale: Array
    shift: Array


def fold_affine(model: onnx.ModelProto) -> int:
    """Fold what can be folded in one go, and return how many nodes are gone; call it until none is."""
    graph = Graph(model)
    dead: list[int] = []
    touched: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if index in touched or node.op_type not in _CHANNEL_AXIS or node.domain or node.input[1] not in graph.constants:
            continue
        follower = graph.sole_consumer(node.output[0])
        if follower is None or follower in touched:
            continue
        affine = _affine(graph, node, graph.nodes[follower])
        if affine is not None and _apply(model, graph, index, follower, affine):
            dead.append(follower)
            touched |= {index, follower}
    for index in sorted(dead, reverse=True):
        del model.graph.node[index]
    return len(dead)


def _affine(graph: Graph, node: onnx.NodeProto, follower: onnx.NodeProto) -> _Affine | None:
    """Return what a node does to the channels of the weighted node before it, or None if something else."""
    if follower.domain or node.output[0] not in graph.float_tensors:
        return None
    if follower.op_type == "BatchNormalization":
        return _batch_norm(graph, node, follower)
    if follower.op_type not in ("Mul", "Div", "Add", "Sub") or len(set(follower.input)) != 2:
        return None
    first = follower.input[0] == node.output[0]
    constant = graph.constants.get(follower.input[1 if first else 0])
    value = _per_channel(graph, node, constant) if constant is not None else None
    return _of_operator(follower.op_type, value, first=first) if value is not None else None


def _of_operator(kind: str, value: Array, *, first: bool) -> _Affine | None:
    """Return what an operator with a constant does to its other input, the `first` or the second."""
    zero, one = np.zeros(1), np.ones(1)
    known = {
        ("Mul", True): _Affine(value, zero),
        ("Mul", False): _Affine(value, zero),
        ("Add", True): _Affine(one, value),
        ("Add", False): _Affine(one, value),
        ("Sub", True): _Affine(one, -value),
        ("Sub", False): _Affine(-one, value),
    }
    if kind == "Div" and first and (value != 0).all():
        return _Affine(1.0 / value, zero)
    return known.get((kind, first))


def _batch_norm(graph: Graph, node: onnx.NodeProto, norm: onnx.NodeProto) -> _Affine | None:
    if norm.input[0] != node.output[0] or attribute(norm, "training_mode", 0) or any(norm.output[1:]):
        return None
    if any(name not in graph.constants for name in norm.input[1:]):
        return None
    # Its channels are on axis 1, those of a product on the last.
    if node.op_type == "MatMul" and len(graph.shapes.get(node.output[0], ())) != 2:
        return None
    gain, bias, mean, variance = (graph.constants[name].astype(np.float64) for name in norm.input[1:5])
    scale = gain / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    return _Affine(scale, bias - mean * scale)


def _per_channel(graph: Graph, node: onnx.NodeProto, value: Array) -> Array | None:
    """Return a constant as a scalar or a vector over output channels, or None where it is neither."""
    shape = graph.shapes.get(node.output[0])
    if shape is None or value.ndim > len(shape):
        return None
    if value.size == 1:
        return value.reshape(1).astype(np.float64)
    axis = 1 if node.op_type in ("Conv", "ConvTranspose") else len(shape) - 1
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if full[axis] != value.size or value.size != _channels(graph, node):
        return None
    return value.reshape(-1).astype(np.float64)


def _channels(graph: Graph, node: onnx.NodeProto) -> int:
    weight = graph.constants[node.input[1]].shape
    if node.op_type == "ConvTranspose":
        return int(weight[1]) * int(attribute(node, "group", 1))
    return int(weight[_weight_axis(node)])


def _weight_axis(node: onnx.NodeProto) -> int:
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else _CHANNEL_AXIS[node.op_type]


def _apply(model: onnx.ModelProto, graph: Graph, index: int, follower: int, affine: _Affine) -> bool:
    node = model.graph.node[index]
    weight = graph.constants[node.input[1]]
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    channels = _channels(graph, node)
    if bias is None or bias.size not in (1, channels):
        return False
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0):
        return False
    shifted = affine.shift.any()
    if node.op_type == "MatMul" and shifted:
        # A product has no bias; with two axes it is a Gemm, otherwise the Add behind it is its bias.
        if weight.ndim != 2 or len(graph.shapes.get(node.output[0], ())) != 2:
            return False
        node.op_type = "Gemm"
    scale, shift = (np.broadcast_to(each, channels) for each in (affine.scale, affine.shift))
    output = graph.nodes[follower].output[0]
    if (scale != 1.0).any():
        _store(model, node, 1, f"{output}/weight", _scaled(node, weight, scale))
    if shifted or bias.any():
        _store(model, node, 2, f"{output}/bias", bias.reshape(-1).astype(np.float64) * scale + shift)
    node.output[0] = output
    return True


def _scaled(node: onnx.NodeProto, weight: Array, scale: Array) -> Array:
    if node.op_type == "ConvTranspose":  # [in, out / groups, ...], the channels of a group beside each other
        groups = int(attribute(node, "group", 1))
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).astype(np.float64)
        per_group = scale.reshape(groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
        return (grouped * per_group).reshape(weight.shape)
    shape = [1] * weight.ndim
    shape[_weight_axis(node)] = -1
    return weight.astype(np.float64) * scale.reshape(shape)


def _store(model: onnx.ModelProto, node: onnx.NodeProto, position: int, name: str, value: Array) -> None:
    """Store a new value beside the old one, which other nodes may read."""
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = name
