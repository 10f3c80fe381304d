"""Tell which masks say no more than which tokens are padding.

Exporters compute an additive mask [batch, 1, queries, keys] out of `attention_mask` [batch, tokens]
in some thirty small operators, a twentieth of the time of a small quantized transformer. The fused
operator can read the tokens' own mask. Whether it says the same is not read off the graph, which
every exporter writes otherwise: the part that computes the mask is run on random masks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewise.errors import ExecutionError
from edgewise.forge.graph import Array
from edgewise.forge.importing import passes
from edgewise.forge.importing.attention_match import MASKING, Mask
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

_SHORT = 16
# The longest that runs: local attention, which hides what is far away, does not show in a short text.
_LONG = (1024, 768, 512, 384, 256, 128)
_MOST_NODES = 300
_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT)
_SEED = 7


def padding_inputs(model: onnx.ModelProto, masks: Iterable[Mask]) -> dict[Mask, str]:
    """Return, for each mask that only hides padding, the model's input that says what is padding."""
    found = {}
    for mask in dict.fromkeys(masks):
        part = _part(model, mask.tensor)
        if part is None:
            continue
        for value in part.graph.input:
            tensor = value.type.tensor_type
            if len(tensor.shape.dim) == 2 and tensor.elem_type in _WHOLE and _is_padding(part, mask, value.name):
                found[mask] = value.name
                break
    return found


def _part(model: onnx.ModelProto, output: str) -> onnx.ModelProto | None:
    """Return the part of a model that computes one tensor from its inputs, if that is a small part."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=output))
    passes.drop_unused(part)
    read = {name for node in part.graph.node for name in node.input}
    inputs = [value for value in model.graph.input if value.name in read]
    del part.graph.input[:]
    part.graph.input.extend(inputs)
    if not inputs or not 0 < len(part.graph.node) <= _MOST_NODES:
        return None
    return part


def _is_padding(part: onnx.ModelProto, mask: Mask, name: str) -> bool:
    rng = np.random.default_rng(_SEED)
    try:
        session = OnnxRuntime().load(part.SerializeToString(), optimise=False)
    except ExecutionError:
        return False

    def agrees(batch: int, tokens: int) -> bool | None:
        feeds = {value.name: _random(value, batch, tokens, rng) for value in part.graph.input}
        try:
            (seen,) = session.run(feeds)
        except ExecutionError:
            return None
        return _says(seen, mask, shown=feeds[name] != 0)

    if not agrees(2, _SHORT) and not agrees(1, _SHORT):
        return False
    return bool(next((said for tokens in _LONG if (said := agrees(1, tokens)) is not None), False))


def _says(seen: Array, mask: Mask, *, shown: Array) -> bool:
    """Say whether a mask hides exactly the tokens that are not shown, from every query and head."""
    if mask.blocked is not None:
        hidden = seen.astype(bool) == mask.where
    elif ((seen == 0) | (seen <= MASKING)).all():
        hidden = seen != 0
    else:
        return False
    if hidden.ndim > 4:
        return False
    hidden = hidden.reshape((1,) * (4 - hidden.ndim) + hidden.shape)
    expected = ~shown[:, None, None, :]
    try:
        return bool((np.broadcast_to(expected, np.broadcast_shapes(hidden.shape, expected.shape)) == hidden).all())
    except ValueError:
        return False


def _random(value: onnx.ValueInfoProto, batch: int, tokens: int, rng: np.random.Generator) -> Array:
    tensor = value.type.tensor_type
    shape = [
        axis.dim_value if axis.HasField("dim_value") else (tokens if position else batch)
        for position, axis in enumerate(tensor.shape.dim)
    ]
    values: Array = rng.integers(0, 2, shape).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    # Some models answer NaN where every token is padding.
    values[..., :1] = 1
    return values
