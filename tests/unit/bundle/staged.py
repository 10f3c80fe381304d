"""A bundle of two stages that really runs: a listener with a state, and a head that runs where it heard something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgewise.bundle.tensors import place_arrays
from edgewise.bundle.write import sealed_file
from edgewise.contracts.manifest import Golden, GoldenOutput, GoldenOutputs, Port
from edgewise.forge.seal.joining import Joined, join
from edgewise.forge.seal.sealing import Label
from tests.unit.bundle.bundles import SIGNER, archive, files

PRODUCT = "kws"
DESCRIPTION = """
deadline_ms = 20000
outputs = ["listener.level", "head.scores"]

[budget]
latency_p50_ms = 20000

[stages.listener]
bundle = "listener.edgewise"
inputs = { x = "sound" }
state = { h_in = "h_out" }

[stages.head]
bundle = "head.edgewise"
inputs = { x = "listener.features" }
when = { value = "listener.level", at_least = 0.5 }
"""
STATELESS = ('{ x = "sound" }\nstate = { h_in = "h_out" }', '{ x = "sound", h_in = "before" }')
"""A change to it: items bring what the state was."""
LOUD, QUIET = np.full((1, 4), 0.6, np.float32), np.full((1, 4), 0.1, np.float32)


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def serialised(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "stage", inputs, outputs, weights or [])
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made


def listener() -> bytes:
    """Return a model whose state adds up what it hears: features and level are of the sum."""
    nodes = [
        helper.make_node("Add", ["x", "h_in"], ["h_out"]),
        helper.make_node("Identity", ["h_out"], ["features"]),
        helper.make_node("ReduceMax", ["h_out"], ["level"], axes=[1], keepdims=0),
    ]
    outputs = [value("level", [1]), value("features", [1, 4]), value("h_out", [1, 4])]
    return serialised(nodes, [value("x", [1, 4]), value("h_in", [1, 4])], outputs)


def head(*, factor: float = 1.0) -> bytes:
    """Return a model with four inputs and three classes."""
    weights = numpy_helper.from_array(factor * np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    return serialised(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])], [value("x", [1, 4])], [value("scores", [1, 3])], [weights]
    )


def one(
    product: str,
    model: bytes,
    samples: list[dict[str, np.ndarray]],
    *,
    version: str = "1.0.0",
    dynamic: dict[str, int] | None = None,
) -> bytes:
    """Return a bundle of one model with these golden inputs; `dynamic` names an axis of ports that is open."""
    session = onnxruntime.InferenceSession(model)
    names = [each.name for each in session.get_outputs()]
    found = [dict(zip(names, session.run(None, each), strict=True)) for each in samples]
    inputs, inputs_file = place_arrays((name, array) for each in samples for name, array in each.items())
    outputs, outputs_file = place_arrays((name, array) for each in found for name, array in each.items())
    manifest, content = files(version=version, product=product)
    content |= {
        "golden/inputs.bin": inputs_file,
        "variants/fp32/golden.bin": outputs_file,
        "variants/fp32/model.onnx": model,
    }
    del content["variants/fp32/weights.bin"]
    size = len(names)
    golden = tuple(
        tuple(GoldenOutput(tensor=each, tolerance=1e-3) for each in outputs[at : at + size])
        for at in range(0, len(outputs), size)
    )
    variant = msgspec.structs.replace(
        manifest.variants[0],
        weights=None,
        tensors=(),
        golden=GoldenOutputs(path="variants/fp32/golden.bin", samples=golden),
    )
    width = len(samples[0])
    manifest = msgspec.structs.replace(
        manifest,
        inputs=ports(samples[0], dynamic or {}),
        outputs=ports(found[0], dynamic or {}),
        variants=(variant,),
        golden=Golden(
            path="golden/inputs.bin",
            split="test",
            samples=tuple(inputs[at : at + width] for at in range(0, len(inputs), width)),
        ),
        files=tuple(sealed_file(path, source) for path, source in sorted(content.items())),
    )
    return archive(manifest, content)


def ports(arrays: dict[str, np.ndarray], dynamic: dict[str, int]) -> tuple[Port, ...]:
    """Return the ports that arrays go through."""
    return tuple(
        Port(
            name=name,
            dtype=array.dtype.name,
            shape=tuple(None if at == dynamic.get(name) else size for at, size in enumerate(array.shape)),
        )
        for name, array in arrays.items()
    )


def stages(folder: Path, *, factor: float = 1.0) -> Path:
    """Write both stages' bundles and the description; return its path."""
    zero = np.zeros((1, 4), np.float32)
    heard = [{"x": each, "h_in": zero} for each in (LOUD, QUIET)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "listener.edgewise").write_bytes(one("listener", listener(), heard))
    (folder / "head.edgewise").write_bytes(one("head", head(factor=factor), [{"x": LOUD}, {"x": QUIET}]))
    path = folder / "voice.toml"
    path.write_text(DESCRIPTION)
    return path


def joined(
    folder: Path, version: str = "1.0.0", *, factor: float = 1.0, changes: tuple[str, str] = ("", "")
) -> tuple[Path, Joined]:
    """Seal the pipeline, its description changed by replacing a text; return the bundle and what came of it."""
    path = stages(folder, factor=factor)
    path.write_text(DESCRIPTION.replace(*changes) if changes[0] else DESCRIPTION)
    output = folder / f"{PRODUCT}-{version}.edgewise"
    return output, join(path, output, label=Label(product=PRODUCT, version=version), signer=SIGNER)
