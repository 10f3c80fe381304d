"""Every released form of a bundle of several stages is read, verified and run for ever, as those of one model are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.pipeline import PipelineManifest
from edgewise.device.pipeline import End
from edgewise.device.pipeline.opened import BundlePipeline
from tests.compat.test_bundles import STAGED

HERE = Path(__file__).parent


@pytest.fixture(params=STAGED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_its_stages_are_read(name: str) -> None:
    with Bundle.open(HERE / f"{name}.edgewise") as bundle:
        assert (bundle.sealed.format_version, [*bundle.stages]) == (1, ["listener", "head"])


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
