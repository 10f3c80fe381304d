"""Make constants of sizes that are computed in the graph and that inference knows.

Exporters compute head sizes and scales from shapes of which another axis is dynamic. ONNX Runtime
folds a Shape as a whole or not at all, so with a dynamic batch none of that would ever fold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgewise.forge.graph import attribute

Sizes = NDArray[Any]
"""Sizes as objects: whole numbers, and None where not known."""


def fold_known_sizes(model: onnx.ModelProto) -> bool:
    """Replace what picks known sizes out of a Shape by constants; what they feed is left to fold."""
    graph = model.graph
    shapes = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer if len(each.dims) < 2}
    sizes: dict[str, Sizes] = {}
    changed = False
    for node in graph.node:
        if node.domain or not node.output:
            continue
        found = _sizes(node, shapes, constants, sizes)
        if found is None:
            continue
        name = node.output[0]
        sizes[name] = found
        if all(size is not None for size in found.reshape(-1)):
            value = numpy_helper.from_array(found.astype(np.int64), f"{name}/value")
            node.CopyFrom(onnx.helper.make_node("Constant", [], [name], name=node.name, value=value))
            changed = True
    return changed


def _sizes(
    node: onnx.NodeProto,
    shapes: dict[str, list[int | None]],
    constants: dict[str, NDArray[Any]],
    sizes: dict[str, Sizes],
) -> Sizes | None:
    """Return what a node computes from sizes, or None where it computes something else."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        picked = shapes[node.input[0]][attribute(node, "start", 0) : attribute(node, "end", None)]
        return np.array(picked, dtype=object)
    if node.op_type == "Concat":
        parts = [sizes.get(name, constants.get(name)) for name in node.input]
        known = [part for part in parts if part is not None and part.ndim == 1]
        return np.concatenate([part.astype(object) for part in known]) if len(known) == len(parts) else None
    if not node.input or node.input[0] not in sizes or any(name not in constants for name in node.input[1:]):
        return None
    return _picked(node.op_type, sizes[node.input[0]], [constants[name] for name in node.input[1:]])


def _picked(kind: str, given: Sizes, rest: list[NDArray[Any]]) -> Sizes | None:
    """Return what an operator with constant indices or axes takes from sizes."""
    found: Any = None
    if kind == "Gather" and given.ndim == 1 and ((rest[0] >= -given.size) & (rest[0] < given.size)).all():
        found = given[rest[0]]
    elif kind == "Slice" and given.ndim == 1 and all(each.size == 1 for each in rest):
        start, end = int(rest[0].item()), int(rest[1].item())
        found = given[start:end] if len(rest) < 4 or int(rest[3].item()) == 1 else None
    elif kind == "Unsqueeze" and given.ndim == 0:
        found = given.reshape(1)
    elif kind == "Squeeze" and given.size == 1:
        found = given.reshape(())
    # Indexing an array of objects by one number gives the object itself.
    return np.array(found, dtype=object) if found is not None else None
