"""An extracted bundle whose classifier gives back what it is given: a test says the logits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewise.bundle.tensors import place_arrays
from edgewise.bundle.write import encode_manifest
from edgewise.contracts.manifest import (
    Golden,
    GoldenOutput,
    GoldenOutputs,
    Manifest,
    Port,
    Postprocessing,
    Preprocessing,
)
from edgewise.contracts.task import ImageOptions
from edgewise.contracts.verification import VariantCalibration
from tests.unit.bundle.bundles import files

LABELS = ("go", "stop", "turn")
SURE = {"x": np.array([9.0, 0.0, 0.0], np.float32).reshape(1, 3, 1, 1)}
UNSURE = {"x": np.array([1.0, 0.9, 0.0], np.float32).reshape(1, 3, 1, 1)}
CALIBRATION = VariantCalibration(temperature=1.0, conformal={"0.9": 0.4})
"""A class is in the prediction set where its probability is 0.6 or more."""


def extracted(
    folder: Path, *, calibration: VariantCalibration = CALIBRATION, kind: str = "classification", stored: bool = False
) -> Path:
    """Write the folder of a bundle: x `[1, 3, 1, 1]` in, y `[1, 3]` out. `stored`: the golden output is a softmax's."""
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 1, 1])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["y"])], "echo", info, out)
    golden = np.array([0.5, 0.25, 0.25], np.float32) if stored else np.array([2.0, 1.0, 0.0], np.float32)
    inputs, inputs_file = place_arrays([("x", golden.reshape(1, 3, 1, 1))])
    outputs, outputs_file = place_arrays([("y", golden.reshape(1, 3))])
    base, _ = files()
    variant = msgspec.structs.replace(
        base.variants[0],
        model="model.onnx",
        weights=None,
        tensors=(),
        calibration=calibration,
        golden=GoldenOutputs(path="out.bin", samples=((GoldenOutput(tensor=outputs[0], tolerance=1e-5),),)),
    )
    manifest: Manifest = msgspec.structs.replace(
        base,
        inputs=(Port(name="x", dtype="float32", shape=(1, 3, 1, 1)),),
        outputs=(Port(name="y", dtype="float32", shape=(1, 3)),),
        preprocessing=Preprocessing(image=ImageOptions(scale=1.0)),
        postprocessing=Postprocessing(kind=kind, labels=LABELS),
        variants=(variant, msgspec.structs.replace(variant, name="other")),
        golden=Golden(path="in.bin", split="test", samples=(inputs,)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    (folder / "in.bin").write_bytes(inputs_file)
    (folder / "out.bin").write_bytes(outputs_file)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return folder


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of the manifest."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
