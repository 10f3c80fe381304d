"""Opens a variant of an extracted bundle, and holds it to its golden outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import decode_manifest
from edgewise.bundle.stages import settled_shapes
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.manifest import GoldenOutput, Manifest, Variant
from edgewise.contracts.target import RuntimeName
from edgewise.device.confidence import CLASSIFICATION, Believer
from edgewise.device.ready import Ready
from edgewise.device.session import BoundSession
from edgewise.errors import BundleError, ExecutionError
from edgewise.numerics.probabilities import are_probabilities
from edgewise.runtimes.base import Array


class Described(NamedTuple):
    """What an extracted bundle says of the variant to open; `bundle` is the SHA-256 of its manifest."""

    manifest: Manifest
    variant: Variant
    bundle: str


def described(folder: Path, name: str | None) -> Described:
    """Return what a bundle says of a variant, the chosen one where `name` is None. Raises BundleError."""
    data = _read(folder / MANIFEST)
    manifest = decode_manifest(data)
    return Described(manifest, _variant(manifest, name or manifest.chosen), hashlib.sha256(data).hexdigest())


def open_variant(folder: Path, name: str | None, *, state: Sequence[tuple[str, str]]) -> Ready:
    """Return a checked variant, the chosen one where `name` is None. Raises BundleError, ModelError, ExecutionError."""
    chosen = described(folder, name)
    manifest, variant, _ = chosen
    shapes = settled_shapes(manifest, variant, state)
    session = BoundSession(folder / variant.model, threads=variant.threads, shapes=shapes, state=state)
    _check_golden(session, golden_inputs(folder, manifest), folder, variant)
    return readied(session, folder, chosen)


def readied(session: BoundSession, folder: Path, chosen: Described) -> Ready:
    """Return a variant that is loaded and checked, with what the bundle says of it. Raises BundleError."""
    manifest, variant, bundle = chosen
    stored = _stored(folder, manifest)
    return Ready(
        session,
        variant=variant.name,
        bundle=bundle,
        identity=_identity(bundle, variant, manifest),
        manifest=manifest,
        believer=_believer(manifest, variant, stored),
        stored=stored,
    )


def _identity(bundle: str, variant: Variant, manifest: Manifest) -> bytes:
    """Return the SHA-256 of the digests of bundle, variant and preprocessing."""
    parts = (bundle.encode(), variant.name.encode(), msgspec.json.encode(manifest.preprocessing))
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _stored(folder: Path, manifest: Manifest) -> bool | None:
    """Return whether a classifier's scores are probabilities already; None for another task."""
    if manifest.postprocessing.kind != CLASSIFICATION or not manifest.outputs:
        return None
    # A quantized softmax need not sum to 1: fp32's golden outputs tell which form the scores have.
    reference = _variant_named(manifest, manifest.fallback)
    output = manifest.outputs[0].name
    data = _read(folder / reference.golden.path)
    rows = [
        read_tensor(data, golden.tensor).reshape(1, -1)
        for sample in reference.golden.samples
        for golden in sample
        if golden.tensor.name == output
    ]
    return bool(rows) and all(are_probabilities(row) for row in rows)


def _believer(manifest: Manifest, variant: Variant, stored: bool | None) -> Believer | None:  # noqa: FBT001 - told apart, not a switch
    """Return what reads a classifier's confidence; None for another task, or where nothing was fitted."""
    fitted = variant.calibration.temperature is not None or variant.calibration.conformal
    if stored is None or not fitted:
        return None
    return Believer(variant.calibration, output=manifest.outputs[0].name, stored=stored)


def _variant(manifest: Manifest, name: str) -> Variant:
    found = _variant_named(manifest, name)
    if found.runtime is not RuntimeName.ONNXRUNTIME:
        raise BundleError(f"variant {name!r} is for {found.runtime}", required="a variant for onnxruntime")
    return found


def _variant_named(manifest: Manifest, name: str) -> Variant:
    for each in manifest.variants:
        if each.name == name:
            return each
    raise BundleError(
        f"the bundle has no variant {name!r}", required=f"one of {', '.join(each.name for each in manifest.variants)}"
    )


def golden_inputs(folder: Path, manifest: Manifest) -> list[dict[str, Array]]:
    """Return the inputs of each golden sample, by name. Raises BundleError."""
    data = _read(folder / manifest.golden.path)
    return [{place.name: read_tensor(data, place) for place in sample} for sample in manifest.golden.samples]


def _check_golden(
    session: BoundSession, samples: Sequence[Mapping[str, Array]], folder: Path, variant: Variant
) -> None:
    data = _read(folder / variant.golden.path)
    for feeds, expected in zip(samples, variant.golden.samples, strict=True):
        outputs = session.run_from(feeds)
        for golden in expected:
            if golden.tensor.name not in outputs:
                continue  # of a state that grows, which stays in the runtime; the trial has compared it
            _compare(outputs[golden.tensor.name], golden, data, variant.name)


def _compare(found: Array, golden: GoldenOutput, data: bytes, variant: str) -> None:
    wanted = read_tensor(data, golden.tensor)
    if found.shape == wanted.shape:
        distances = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        if np.all(distances <= golden.tolerance):  # false for what is not a number
            return
    raise ExecutionError(
        f"variant {variant!r} gives another {golden.tensor.name!r} for a golden input than when it was sealed",
        required=f"a difference of at most {golden.tolerance:g}",
        next_step="run another variant, or seal one for this device",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}", required="the folder of an extracted bundle") from error
