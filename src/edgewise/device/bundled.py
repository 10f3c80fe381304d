"""Opens a variant of an extracted bundle, and holds it to its golden outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import decode_manifest
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.manifest import GoldenOutput, Manifest, Variant
from edgewise.contracts.target import RuntimeName
from edgewise.device.session import BoundSession
from edgewise.errors import BundleError, ExecutionError
from edgewise.runtimes.base import Array


def open_variant(folder: Path, name: str | None, *, state: Sequence[tuple[str, str]]) -> tuple[BoundSession, str, str]:
    """Return a checked session, the variant's name and the SHA-256 (hex) of the manifest.

    None takes the chosen variant. Raises BundleError, ModelError and ExecutionError.
    """
    data = _read(folder / MANIFEST)
    manifest = decode_manifest(data)
    variant = _variant(manifest, name or manifest.chosen)
    samples = _golden_inputs(folder, manifest)
    shapes = {name: array.shape for name, array in samples[0].items()} if samples else {}
    session = BoundSession(folder / variant.model, threads=variant.threads, shapes=shapes, state=state)
    _check_golden(session, samples, folder, variant)
    return session, variant.name, hashlib.sha256(data).hexdigest()


def _variant(manifest: Manifest, name: str) -> Variant:
    for each in manifest.variants:
        if each.name == name:
            if each.runtime is not RuntimeName.ONNXRUNTIME:
                raise BundleError(f"variant {name!r} is for {each.runtime}", required="a variant for onnxruntime")
            return each
    raise BundleError(
        f"the bundle has no variant {name!r}", required=f"one of {', '.join(each.name for each in manifest.variants)}"
    )


def _golden_inputs(folder: Path, manifest: Manifest) -> list[dict[str, Array]]:
    data = _read(folder / manifest.golden.path)
    return [{place.name: read_tensor(data, place) for place in sample} for sample in manifest.golden.samples]


def _check_golden(
    session: BoundSession, samples: Sequence[Mapping[str, Array]], folder: Path, variant: Variant
) -> None:
    data = _read(folder / variant.golden.path)
    for feeds, expected in zip(samples, variant.golden.samples, strict=True):
        outputs = session.run_from(feeds)
        for golden in expected:
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
