"""Small graph passes on top of what ONNX Runtime folds by itself. Each returns whether it changed anything."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.forge.graph import Graph, attribute
from edgewise.forge.importing.tensors import nested, subgraphs


def absorb_pads(model: onnx.ModelProto) -> bool:
    """Fold constant zero padding into the convolution behind it, its only reader."""
    graph = Graph(model)
    dead = []
    for index, node in enumerate(graph.nodes):
        if node.op_type != "Pad" or attribute(node, "mode", b"constant") != b"constant":
            continue
        follower = graph.sole_consumer(node.output[0])
        pads = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        value = graph.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
        if follower is None or pads is None or value != 0.0 or len(node.input) > 3:
            continue
        # The model's own node, for an earlier fold of this pass may have changed it.
        conv = model.graph.node[follower]
        rank = pads.size // 2
        outer = (*pads[:2], *pads[rank : rank + 2])
        if conv.op_type != "Conv" or conv.input[0] != node.output[0] or any(outer) or (pads < 0).any():
            continue
        if attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            continue
        inner = [*pads[2:rank], *pads[rank + 2 :]]
        old = attribute(conv, "pads", [0] * len(inner))
        _set(conv, "pads", [int(a) + int(b) for a, b in zip(inner, old, strict=True)])
        conv.input[0] = node.input[0]
        dead.append(index)
    _remove(model, dead)
    return bool(dead)


def global_pools(model: onnx.ModelProto) -> bool:
    """Write means over all of height and width as GlobalAveragePool, which has an integer kernel."""
    graph = Graph(model)
    changed = False
    for index, node in reversed(list(enumerate(graph.nodes))):
        shape = graph.shapes.get(node.input[0]) if node.input else None
        if shape is None or len(shape) != 4 or None in shape[1:] or node.input[0] not in graph.float_tensors:
            continue
        if node.op_type == "AveragePool" and _covers(node, shape):
            pooled = helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], name=node.name)
            model.graph.node[index].CopyFrom(pooled)
            changed = True
        elif node.op_type == "ReduceMean" and _mean_axes(graph, node) == (2, 3):
            _replace_mean(model, index, node, flatten=not attribute(node, "keepdims", 1))
            changed = True
    return changed


def canonical_gemms(model: onnx.ModelProto) -> bool:
    """Store the constant right side of every Gemm as [K, N] (transB = 0), as integer kernels want it."""
    graph = Graph(model)
    changed = False
    for node in model.graph.node:
        if node.op_type != "Gemm" or not attribute(node, "transB", 0) or node.input[1] not in graph.constants:
            continue
        name = f"{node.output[0]}/weight_t"
        value = np.ascontiguousarray(graph.constants[node.input[1]].T)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        node.input[1] = name
        _set(node, "transB", 0)
        changed = True
    return changed


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    graph = model.graph
    wanted = {each.name for each in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not any(name and name in wanted for name in node.output):
            del graph.node[index]
            continue
        wanted.update(node.input)
        for inner in subgraphs(node):
            wanted.update(_read_inside(inner))
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in wanted:
            del graph.initializer[index]


def _covers(node: onnx.NodeProto, shape: tuple[int | None, ...]) -> bool:
    return (
        tuple(attribute(node, "kernel_shape", ())) == shape[2:]
        and not any(attribute(node, "pads", ()))
        and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID", b"")
    )


def _mean_axes(graph: Graph, node: onnx.NodeProto) -> tuple[int, ...]:
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.constants[node.input[1]].tolist()
    return tuple(sorted(int(axis) % 4 for axis in axes or ()))


def _replace_mean(model: onnx.ModelProto, index: int, node: onnx.NodeProto, *, flatten: bool) -> None:
    output = node.output[0]
    pooled = f"{output}/pooled" if flatten else output
    new = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=pooled)]
    if flatten:
        new.append(helper.make_node("Flatten", [pooled], [output], name=output, axis=1))
    nodes = [onnx.NodeProto.FromString(each.SerializeToString()) for each in model.graph.node]
    nodes[index : index + 1] = new
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _read_inside(graph: onnx.GraphProto) -> set[str]:
    """Return all names that a subgraph mentions: more than it captures, so nothing it needs is lost."""
    names = {name for node in nested(graph.node) for name in node.input}
    for node in nested(graph.node):
        for inner in subgraphs(node):
            names.update(value.name for value in inner.output)
    return names | {value.name for value in graph.output}


def _remove(model: onnx.ModelProto, indices: list[int]) -> None:
    for index in sorted(indices, reverse=True):
        del model.graph.node[index]


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    for each in list(node.attribute):
        if each.name == name:
            node.attribute.remove(each)
    node.attribute.append(helper.make_attribute(name, value))
