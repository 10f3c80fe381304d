from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.manifest import Manifest
from edgewise.device import Runtime
from edgewise.errors import BundleError, ExecutionError


@pytest.fixture
def slot(bundle: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    with Bundle.open(bundle) as opened:
        opened.extract(tmp_path / "slot")
        return tmp_path / "slot", opened.manifest


def test_a_sealed_bundle_runs_and_is_held_to_its_golden_outputs(slot: tuple[Path, Manifest]) -> None:
    folder, manifest = slot
    runtime = Runtime.open(folder)
    inputs = (folder / manifest.golden.path).read_bytes()
    answer = runtime.infer({each.name: read_tensor(inputs, each) for each in manifest.golden.samples[0]})
    assert answer.outcome.variant == manifest.chosen
    assert answer.outcome.bundle == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    golden = manifest.variants[0].golden
    first = golden.samples[0][0]
    expected = read_tensor((folder / golden.path).read_bytes(), first.tensor)
    assert np.max(np.abs(answer.outputs[first.tensor.name] - expected)) <= first.tolerance

    assert Runtime.open(folder, variant=manifest.fallback).variant == manifest.fallback
    with pytest.raises(BundleError, match="no variant"):
        Runtime.open(folder, variant="another")

    last = golden.samples[-1][-1]
    data = bytearray((folder / golden.path).read_bytes())
    wrong = read_tensor(bytes(data), last.tensor) + np.float32(3 * last.tolerance)
    data[last.tensor.offset : last.tensor.offset + last.tensor.size] = wrong.astype("<f4").tobytes()
    (folder / golden.path).write_bytes(data)
    with pytest.raises(ExecutionError, match="golden"):
        Runtime.open(folder)
