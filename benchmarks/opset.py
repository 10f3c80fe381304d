"""Loads a model for a peer that wants per-channel weights. Runs in the peers' environments."""

from pathlib import Path

import onnx
import onnx.version_converter

PER_CHANNEL_OPSET, RAISED_OPSET = 13, 17


def load(path: Path) -> onnx.ModelProto:
    """Read the model; convert one too old for per-channel weights, as the peers' warnings ask."""
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset >= PER_CHANNEL_OPSET:
        return model
    return onnx.version_converter.convert_version(model, RAISED_OPSET)
