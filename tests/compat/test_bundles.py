"""Every released form of a bundle is read, verified and run for ever. A file here is never written again."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sysconfig
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.bundle.delta_apply import apply
from edgewise.bundle.delta_make import candidates
from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.run import Run
from edgewise.contracts.verification import Verification
from edgewise.errors import SignatureError
from edgewise.keys.files import load_public
from edgewise.keys.pair import generate, public_of
from edgewise.runtimes import runtime

HERE = Path(__file__).parent
TOOL = Path(sysconfig.get_path("scripts")) / "model_signing"
RELEASED = {"bundle-1": "ca4140b41523cabad09dd965c49a512920d390dce0ea96c947b4859439708424"}
STAGED = {"stages-1": "7f3d511bb9f9b59096817d4550686f20b600360c65c30d2b07a70a463c0f324a"}
"""The name of each released bundle, of one model and of several stages, and its SHA-256."""


@pytest.fixture(params=RELEASED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=RELEASED | STAGED)
def any_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_verifies_with_the_key_beside_it(any_name: str) -> None:
    with Bundle.open(HERE / f"{any_name}.edgewise") as bundle:
        assert bundle.verify([load_public(HERE / f"{any_name}.pub")]) == (RELEASED | STAGED)[any_name]
        bundle.verify_model_signature(load_public(HERE / f"{any_name}-model.pub"))
        with pytest.raises(SignatureError):
            bundle.verify([public_of(generate())])


def test_its_documents_are_read(name: str) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        manifest = bundle.manifest
        run = msgspec.json.decode(bundle.read("evidence.json", most=1 << 24), type=Run)
        verification = msgspec.json.decode(bundle.read("verification.json", most=1 << 24), type=Verification)
    assert (manifest.format_version, manifest.product, manifest.version) == (1, "demo", "1.0.0")
    assert run.chosen is not None
    assert verification.variant_digest == manifest.variants[0].source_digest
    assert manifest.variants[0].calibration == verification.calibration
    assert manifest.variants[0].drift


def test_its_variants_still_give_their_golden_outputs(name: str, tmp_path: Path) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        manifest = bundle.manifest
        bundle.extract(tmp_path / "out")
    inputs = (tmp_path / "out" / manifest.golden.path).read_bytes()
    for variant in manifest.variants:
        outputs = (tmp_path / "out" / variant.golden.path).read_bytes()
        session = runtime(variant.runtime).load(tmp_path / "out" / variant.model, threads=variant.threads)
        for given, expected in zip(manifest.golden.samples, variant.golden.samples, strict=True):
            found = session.run({each.name: read_tensor(inputs, each) for each in given})
            for array, each in zip(found, expected, strict=True):
                assert float(np.max(np.abs(array - read_tensor(outputs, each.tensor)))) <= each.tolerance


def test_the_reference_tool_accepts_its_model_signature(any_name: str, tmp_path: Path) -> None:
    with Bundle.open(HERE / f"{any_name}.edgewise") as bundle:
        bundle.extract(tmp_path / "out")
    signature, key = tmp_path / "out" / "model.sig", HERE / f"{any_name}-model.pub"
    command: list[str | Path] = [TOOL, "verify", "key", tmp_path / "out", "--signature", signature]
    done = subprocess.run(
        [*command, "--public_key", key, "--no-ignore-git-paths"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr


def test_deltas_to_itself_are_small_and_exact(name: str) -> None:
    data = (HERE / f"{name}.edgewise").read_bytes()
    for each in candidates(data, data):
        out = io.BytesIO()
        apply(data, io.BytesIO(each.data), out.write, digest=hashlib.sha256(data).hexdigest())
        assert out.getvalue() == data
        assert len(each.data) < 0.05 * len(data)
