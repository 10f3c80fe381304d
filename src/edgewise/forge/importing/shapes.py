"""Sizes: those that the user gives, those that inference finds, and what they make constant."""

from __future__ import annotations

import difflib

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgewise.errors import ModelError
from edgewise.forge.graph import attribute

# Inference reads the values of small constants (axes, target shapes), never weights.
_SMALL_BYTES = 1 << 12


def static_shapes(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Write fixed sizes into dynamic input axes; 0 in a given shape leaves its axis as it is.

    Raises ModelError where a name or a size does not go with the model.
    """
    values = {value.name: value for value in model.graph.input}
    for name in shapes:
        if name not in values:
            close = difflib.get_close_matches(name, values, n=1)
            raise ModelError(
                f"[model.inputs] names {name!r}, which is no input of the model",
                required=f"names among {', '.join(values)}",
                next_step=f"did you mean {close[0]!r}?" if close else "correct the name",
            )
    # A list, not a generator: every input is to be written.
    changed = any([_fix(value, shapes.get(value.name)) for value in values.values()])
    if changed:
        del model.graph.value_info[:]
        for value in model.graph.output:
            for axis in value.type.tensor_type.shape.dim:
                if axis.HasField("dim_param"):
                    axis.ClearField("dim_param")
    return changed


def _fix(value: onnx.ValueInfoProto, given: tuple[int, ...] | None) -> bool:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        if given is None:
            raise ModelError(
                f"the input {value.name!r} states no shape",
                required="a number of axes for each input",
                next_step=f"give it in [model.inputs], like {value.name} = [1, 3, 224, 224]",
            )
        tensor.shape.SetInParent()
        for _ in given:
            tensor.shape.dim.add()
    if given is None:
        return False
    axes = tensor.shape.dim
    stated = [axis.dim_value if axis.HasField("dim_value") else "?" for axis in axes]
    fits = len(given) == len(axes) and all(
        size == 0 or found in ("?", size) for size, found in zip(given, stated, strict=True)
    )
    if not fits:
        raise ModelError(
            f"[model.inputs] gives {value.name} = {list(given)}",
            required=f"a shape that fits the model's [{', '.join(map(str, stated))}], where ? may be any size",
            next_step="correct the shape, or export the model for it",
        )
    changed = False
    for axis, size in zip(axes, given, strict=True):
        if size and not axis.HasField("dim_value"):
            axis.dim_value = size
            changed = True
    return changed


def infer_shapes(model: onnx.ModelProto) -> None:
    """Write down the types and shapes that inference finds. Raises ModelError where they contradict.

    Weights stay out of it: inference takes a serialised model, and they are nearly all of its bytes.
    """
    lifted = _lift(model)
    try:
        found = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"shapes do not fit together: {' '.join(str(error).split())[:300]}",
            required="a model whose shapes can be inferred",
            next_step="export the model again",
        ) from error
    finally:
        for tensor, data in lifted:
            tensor.raw_data = data
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    for kind in ("value_info", "output"):
        values = getattr(model.graph, kind)
        del values[:]
        values.extend(getattr(found.graph, kind))


def _lift(model: onnx.ModelProto) -> list[tuple[onnx.TensorProto, bytes]]:
    lifted = []
    for tensor in model.graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) > _SMALL_BYTES:
            lifted.append((tensor, tensor.raw_data))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="lifted")
    return lifted


def fold_known_sizes(model: onnx.ModelProto) -> bool:
    """Make constants of sizes that are picked out of a Shape and that inference knows.

    Exporters compute head sizes and scales from shapes of which another axis is dynamic; folding
    takes a Shape as a whole, so none of that would ever fold.
    """
    graph = model.graph
    dims = {
        value.name: [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer if len(each.dims) < 2}
    sizes: dict[str, list[int | None]] = {}
    changed = False
    for node in graph.node:
        if node.op_type == "Shape" and not node.domain and node.input[0] in dims:
            start, end = attribute(node, "start", 0), attribute(node, "end", None)
            sizes[node.output[0]] = list(dims[node.input[0]][start:end])
            continue
        picked = _picked(node, sizes, values)
        if picked is None or any(size is None for size in picked.reshape(-1)):
            continue
        constant = numpy_helper.from_array(picked.astype(np.int64), f"{node.output[0]}/value")
        node.CopyFrom(onnx.helper.make_node("Constant", [], [node.output[0]], name=node.name, value=constant))
        changed = True
    return changed


def _picked(
    node: onnx.NodeProto, sizes: dict[str, list[int | None]], values: dict[str, np.ndarray]
) -> np.ndarray | None:
    """Return what a Gather or Slice of constant indices takes from a Shape."""
    if not node.input or node.input[0] not in sizes or any(name not in values for name in node.input[1:]):
        return None
    given = np.array(sizes[node.input[0]], dtype=object)
    rest = [values[name] for name in node.input[1:]]
    if node.op_type == "Gather" and attribute(node, "axis", 0) == 0:
        inside = (rest[0] >= -len(given)) & (rest[0] < len(given))
        return np.asarray(given[rest[0]], dtype=object) if inside.all() else None
    if node.op_type == "Slice" and len(rest) >= 2 and all(each.size == 1 for each in rest):
        start, end = int(rest[0].item()), int(rest[1].item())
        step = int(rest[3].item()) if len(rest) > 3 else 1
        return given[start:end:step] if step == 1 else None
    return None
