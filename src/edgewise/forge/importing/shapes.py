"""Sizes: those that the user gives and those that inference finds."""

from __future__ import annotations

import difflib

import onnx
from onnx import TensorProto

from edgewise.errors import ModelError

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
    changed = [_fix(value, shapes.get(value.name)) for value in values.values()]
    if any(changed):
        del model.graph.value_info[:]
        for value in model.graph.output:
            for axis in value.type.tensor_type.shape.dim:
                if axis.HasField("dim_param"):
                    axis.ClearField("dim_param")
    return any(changed)


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
