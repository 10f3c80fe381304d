"""Small bundles, and a key to seal them with."""

from __future__ import annotations

import io

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewise.bundle.names import BOM, CARD, EVIDENCE, MANIFEST
from edgewise.bundle.tensors import place_arrays
from edgewise.bundle.write import Source, encode_manifest, sealed_file, write_archive
from edgewise.contracts.budget import Budget, Verdict
from edgewise.contracts.evidence import Figures
from edgewise.contracts.manifest import (
    Golden,
    GoldenOutput,
    GoldenOutputs,
    Manifest,
    Port,
    Postprocessing,
    Preprocessing,
    Variant,
)
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.keys.pair import public_of, signer_of

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER, KEY = signer_of(PRIVATE), public_of(PRIVATE)
WEIGHTS = "variants/fp32/weights.bin"
NONE = "0" * 64


def files(
    *, version: str = "1.2.0", weights: dict[str, np.ndarray] | None = None, product: str = "kws"
) -> tuple[Manifest, dict[str, Source]]:
    """Return the manifest and the files of a bundle with one variant; the graph is only named so."""
    random = np.random.default_rng(0)
    if weights is None:
        weights = {"conv": random.integers(-128, 128, (16, 40), np.int8), "bias": np.arange(16, dtype=np.int32)}
    inputs, inputs_file = place_arrays([("x", random.standard_normal((1, 4)).astype(np.float32))])
    outputs, outputs_file = place_arrays([("y", random.standard_normal((1, 2)).astype(np.float32))])
    tensors, weights_file = place_arrays(weights.items())
    content: dict[str, Source] = {
        BOM: b"{}",
        CARD: b"# kws\n",
        EVIDENCE: b"{}",
        "golden/inputs.bin": inputs_file,
        "variants/fp32/golden.bin": outputs_file,
        "variants/fp32/model.onnx": b"graph",
        WEIGHTS: weights_file,
    }
    variant = Variant(
        name="fp32",
        runtime=RuntimeName.ONNXRUNTIME,
        precision="fp32",
        device_class="local",
        threads=1,
        model="variants/fp32/model.onnx",
        weights=WEIGHTS,
        tensors=tensors,
        source_digest=NONE,
        recipe=Recipe(name="fp32", regions=()),
        recipe_digest=NONE,
        figures=Figures(path=None, runtime="onnxruntime"),
        verdicts=(),
        verdict=Verdict.PASS,
        golden=GoldenOutputs(
            path="variants/fp32/golden.bin",
            samples=((GoldenOutput(tensor=outputs[0], tolerance=1e-3),),),
        ),
    )
    manifest = Manifest(
        product=product,
        version=version,
        security_floor="1.0.0",
        sealed_with="edgewise 0",
        task="classification",
        metric="accuracy",
        target="local",
        model_digest=NONE,
        inputs=(Port(name="x", dtype="float32", shape=(1, 4)),),
        outputs=(Port(name="y", dtype="float32", shape=(1, 2)),),
        preprocessing=Preprocessing(),
        postprocessing=Postprocessing(kind="classification"),
        budget=Budget(),
        chosen="fp32",
        fallback="fp32",
        variants=(variant,),
        golden=Golden(path="golden/inputs.bin", split="test", samples=(inputs,)),
        files=tuple(sealed_file(path, source) for path, source in sorted(content.items())),
    )
    return manifest, content


def archive(manifest: Manifest, content: dict[str, Source]) -> bytes:
    """Return the bytes of a bundle; the manifest is not checked."""
    out = io.BytesIO()
    write_archive(out, {MANIFEST: encode_manifest(manifest), **content}, signer=SIGNER)
    return out.getvalue()


def bundle(*, version: str = "1.2.0", weights: dict[str, np.ndarray] | None = None) -> bytes:
    """Return the bytes of a good bundle."""
    return archive(*files(version=version, weights=weights))
