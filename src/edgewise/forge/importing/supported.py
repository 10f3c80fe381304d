"""Refuse models that are sound but not what is quantized here: other types, quantized already, unknown operators."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from edgewise.errors import ModelError
from edgewise.forge.importing.tensors import nodes

MIN_OPSET = 11
_STANDARD = ("", "ai.onnx")
_KNOWN_DOMAINS = frozenset({*_STANDARD, "ai.onnx.ml", "com.microsoft", "ai.onnx.training", "com.ms.internal.nhwc"})

_QUANTIZED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulNBits",
        "MatMulBnb4",
        "GatherBlockQuantized",
        "QGemm",
        "QAttention",
        "QEmbedLayerNormalization",
    }
)
_QUANTIZED_PREFIX = "QLinear"

_OTHER_FLOATS = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
# What may be fed: numbers of the widths that data files hold.
_FED = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.INT16,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
        TensorProto.BOOL,
    }
)


def check_supported(model: onnx.ModelProto, name: str, *, is_variant: bool = False) -> None:
    """Raise ModelError for what cannot be quantized here, or, of a variant, for what cannot be run here."""
    _check_operators(model, name)
    _check_inputs(model, name)
    if not is_variant:
        _refuse_quantized(model, name)
        _check_weights(model, name)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators, 0 where the model states none."""
    return next((int(each.version) for each in model.opset_import if each.domain in _STANDARD), 0)


def _check_operators(model: onnx.ModelProto, name: str) -> None:
    domains = {node.domain for node in nodes(model)}
    own = {function.domain for function in model.functions}
    unknown = sorted(domains - _KNOWN_DOMAINS - own)
    if unknown:
        raise ModelError(
            f"{name}: operators of the domain {unknown[0]!r}",
            required="standard operators, or ONNX Runtime's own",
            next_step="export without custom operators: edgewise does not load their libraries",
        )
    version = opset_of(model)
    if version < MIN_OPSET:
        raise ModelError(
            f"{name}: opset {version}",
            required=f"opset {MIN_OPSET} or newer",
            next_step="export with a newer opset_version, or convert it with onnx.version_converter",
        )


def _refuse_quantized(model: onnx.ModelProto, name: str) -> None:
    for node in nodes(model):
        if node.op_type in _QUANTIZED or node.op_type.startswith(_QUANTIZED_PREFIX):
            raise ModelError(
                f"{name}: already quantized ({node.op_type} {node.name or node.output[0]!r})",
                required="a model in float32",
                next_step="give the model that it was quantized from",
            )


def _check_inputs(model: onnx.ModelProto, name: str) -> None:
    initial = {each.name for each in model.graph.initializer}
    fed = [each for each in model.graph.input if each.name not in initial]
    if not fed:
        raise ModelError(
            f"{name}: the graph has no inputs",
            required="at least one input to calibrate with",
            next_step="check that this is the right file",
        )
    for value in fed:
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value") or "of no type"
            raise ModelError(
                f"{name}: the input {value.name!r} is no tensor ({kind})",
                required="tensors as inputs",
                next_step="export the model with one tensor for each input",
            )
        if value.type.tensor_type.elem_type not in (*_FED, *_OTHER_FLOATS):
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise ModelError(
                f"{name}: the input {value.name!r} is of type {kind.lower()}",
                required="numbers as inputs",
                next_step="cut the model behind its text or string processing",
            )


def _check_weights(model: onnx.ModelProto, name: str) -> None:
    """Refuse inputs, outputs and weights of other floats, but for weights that are cast first (stored as float16)."""
    initial = {each.name for each in model.graph.initializer}
    for value in (*(each for each in model.graph.input if each.name not in initial), *model.graph.output):
        _refuse_other_floats(value.type.tensor_type.elem_type, f"{name}: {value.name!r}")
    weights = {
        each.name: each.data_type
        for each in model.graph.initializer
        if len(each.dims) > 1 and each.data_type in _OTHER_FLOATS
    }
    for node in model.graph.node:
        for read in node.input:
            if read in weights and node.op_type != "Cast":
                _refuse_other_floats(weights[read], f"{name}: the weight {read!r}")


def _refuse_other_floats(kind: int, what: str) -> None:
    found = _OTHER_FLOATS.get(TensorProto.DataType.ValueType(kind))
    if found is not None:
        raise ModelError(
            f"{what} is {found}",
            required="a model in float32: inputs, outputs and weights",
            next_step="export the model in float32 (torch: model.float()); float16 is among what edgewise tries",
        )
