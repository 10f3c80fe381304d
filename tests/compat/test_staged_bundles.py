"""Every released form of a bundle of several stages is read, verified and run for ever, as those of one model are."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.pipeline import PipelineManifest
from edgewise.device.pipeline import End
from edgewise.device.pipeline.opened import BundlePipeline
from edgewise.errors import SignatureError
from edgewise.keys.files import load_public
from edgewise.keys.pair import generate, public_of

HERE = Path(__file__).parent
TOOL = Path(sysconfig.get_path("scripts")) / "model_signing"
RELEASED = {"stages-1": "7f3d511bb9f9b59096817d4550686f20b600360c65c30d2b07a70a463c0f324a"}
"""The name of each released bundle and its SHA-256."""


@pytest.fixture(params=RELEASED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_verifies_with_the_key_beside_it(name: str) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        assert bundle.verify([load_public(HERE / f"{name}.pub")]) == RELEASED[name]
        bundle.verify_model_signature(load_public(HERE / f"{name}-model.pub"))
        assert (bundle.sealed.format_version, [*bundle.stages]) == (1, ["listener", "head"])
        with pytest.raises(SignatureError):
            bundle.verify([public_of(generate())])


def test_it_still_gives_its_golden_outputs(name: str, tmp_path: Path) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        bundle.extract(tmp_path / "out")
    with BundlePipeline(tmp_path / "out") as opened:
        manifest: PipelineManifest = opened.manifest
        inputs = (tmp_path / "out" / manifest.golden.path).read_bytes()
        outputs = (tmp_path / "out" / manifest.golden_outputs.path).read_bytes()
        for given, expected in zip(manifest.golden.samples, manifest.golden_outputs.samples, strict=True):
            item = {each.name: read_tensor(inputs, each) for each in given}
            ticket = opened.submit(item, deadline_ms=60_000, begins=True)
            assert ticket.result().end is End.OUT
            found = opened.outputs_of(ticket)
            assert [*found] == [each.tensor.name for each in expected]
            for array, each in zip(found.values(), expected, strict=True):
                assert float(np.max(np.abs(array - read_tensor(outputs, each.tensor)))) <= each.tolerance


def test_the_reference_tool_accepts_its_model_signature(name: str, tmp_path: Path) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        bundle.extract(tmp_path / "out")
    signature, key = tmp_path / "out" / "model.sig", HERE / f"{name}-model.pub"
    command: list[str | Path] = [TOOL, "verify", "key", tmp_path / "out", "--signature", signature]
    done = subprocess.run(
        [*command, "--public_key", key, "--no-ignore-git-paths"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
