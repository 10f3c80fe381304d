"""Normalise a checked model: one opset, constants folded, batch norms gone, shapes inferred. Runs in the sandbox."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from edgewise.errors import ModelError
from edgewise.forge.importing import passes

# Per-channel QuantizeLinear needs 13; LayerNormalization came with 17.
TARGET_OPSET = 17


def normalise(
    model: onnx.ModelProto, *, original: Path, shapes: dict[str, tuple[int, ...]]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the normalised model and notes. Raises ModelError where ONNX Runtime cannot load it.

    ONNX Runtime's own basic optimisations do the folding (constants, batch norm as one node or as Mul
    and Add, identity chains), so what is folded here is what would be folded when it ships.
    """
    model = _at_opset(model)
    passes.static_shapes(model, shapes)
    model = with_shapes(_folded(model))
    if passes.absorb_pads(model) | passes.global_pools(model) | passes.canonical_gemms(model):
        passes.drop_unused(model)
        model = _folded(model)
    _drop_unused_domains(model)
    return with_shapes(model), ()


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the value infos that shape inference finds."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(
            f"shapes do not fit together: {str(error).splitlines()[0][:300]}",
            required="a model whose shapes can be inferred",
            next_step="export the model again",
        ) from error


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if version >= TARGET_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, TARGET_OPSET)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            f"opset {version} cannot be converted to {TARGET_OPSET}: {str(error).splitlines()[0][:200]}",
            required=f"a model of opset {TARGET_OPSET}, or one that onnx.version_converter accepts",
            next_step=f"export the model with opset_version={TARGET_OPSET}",
        ) from error


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(written)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises bare Exception subclasses of its own
            raise ModelError(
                f"ONNX Runtime cannot load the model: {str(error).splitlines()[0][:300]}",
                required="a model that ONNX Runtime can run",
                next_step="check the export with onnxruntime.InferenceSession",
            ) from error
        return onnx.load(str(written))


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    kept = [(each.domain, each.version) for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept)
