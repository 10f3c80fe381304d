"""Bring a model into one form of writing: one opset, no functions, constants that are constant."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.version_converter

from edgewise.errors import ModelError
from edgewise.forge.importing.supported import opset_of

TARGET_OPSET = 17
"""LayerNormalization came with 17, per-channel QuantizeLinear with 13. Newer models stay as they are."""

_WORKABLE_OPSET = 13
_NEWEST_IR = 10


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the bodies of its functions in the places of their calls."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def fix_constants(model: onnx.ModelProto) -> bool:
    """Take initializers out of the inputs, where IR versions before 4 list them all.

    An initializer that is an input may be fed another value, so nothing that depends on it folds.
    """
    initial = {each.name for each in model.graph.initializer}
    kept = [each for each in model.graph.input if each.name not in initial]
    if len(kept) == len(model.graph.input):
        return False
    copies = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in kept]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    model.ir_version = max(model.ir_version, 4)
    return True


def at_target_opset(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return the model at TARGET_OPSET or newer, and a note where it was converted or could not be."""
    version = opset_of(model)
    if version >= TARGET_OPSET:
        return model, ""
    try:
        converted = onnx.version_converter.convert_version(model, TARGET_OPSET)
    except (RuntimeError, ValueError, IndexError) as error:
        # What the converter throws in C++, an operator without an adapter above all.
        words = " ".join(str(error).split())[:200]
        if version >= _WORKABLE_OPSET:
            return model, f"left at opset {version}, for it cannot be converted to {TARGET_OPSET}: {words}"
        raise ModelError(
            f"opset {version} cannot be converted to {TARGET_OPSET}: {words}",
            required=f"a model of opset {_WORKABLE_OPSET} or newer, or one that onnx.version_converter accepts",
            next_step=f"export the model with opset_version={TARGET_OPSET}",
        ) from error
    converted.ir_version = max(converted.ir_version, min(model.ir_version, _NEWEST_IR), 8)
    return converted, f"opset {version} converted to {TARGET_OPSET}"
