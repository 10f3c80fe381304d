from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgewise.cli.main import run
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Depth
from edgewise.forge.optimize import optimize
from edgewise.forge.seal import drift
from edgewise.forge.verify import cost
from edgewise.forge.verify import open as opening
from edgewise.forge.verify import verify as verifying
from edgewise.forge.verify.baseline import DOCUMENT, FOLDER
from edgewise.forge.verify.streams.suite import streams
from edgewise.forge.verify.suites import SUITES
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate
from tests.unit.cli.models import small
from tests.unit.runtimes.models import serialised


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its data, a run over them in `run`, and keys without a passphrase."""
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "model.onnx").write_bytes(serialised(small()))
    random = np.random.default_rng(0)
    for split, count in (("calibrate", 80), ("test", 60)):
        np.savez(folder / f"{split}.npz", x=random.standard_normal((count, 3, 16, 16)).astype(np.float32))
    project = Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(calibrate="calibrate.npz", test="test.npz"),
        budget=Budget(size_mib=1.0),
        search=SearchConfig(effort=Effort.FAST, workers=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        optimize(project, base=folder, output=folder / "run")
    save_pair(generate(), folder / "seal.pem", passphrase=None)
    save_pair(generate("ecdsa-p256"), folder / "seal-model.pem", passphrase=None)
    return folder


@pytest.fixture(scope="session")
def bundle(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a bundle, sealed once for all who only read it, in a folder of its own."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("bundle") / "place"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["seal", "run", "-o", "kws-1.3.0.edgewise", "--key", "seal.pem"]) == 0
    return folder / "kws-1.3.0.edgewise"


@pytest.fixture(scope="session")
def verification(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgewise verify` writes about the run, after short measurements: nothing here is about them."""
    folder = tmp_path_factory.mktemp("verified") / "verification"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_SECONDS", dict.fromkeys(Depth, 0.1))
        patch.setattr(opening, "_SECONDS", dict.fromkeys(Depth, 0.5))
        patch.setattr(verifying, "SUITES", tuple(each for each in SUITES if each[1] is not streams))
        assert run(["verify", str(made / "run"), "--output", str(folder)]) in {0, 1, 3}
    return folder


@pytest.fixture
def verified(place: Path, verification: Path) -> Path:
    """The run of `place`, as it is after it was verified; return the document."""
    return Path(shutil.copytree(verification, place / "run" / FOLDER)) / DOCUMENT


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it which is the current folder; data and model are found where they were.

    What is sealed here has rough cut-offs of drift, for drawing them takes most of the time; `bundle` has real ones.
    """
    monkeypatch.setattr(drift, "_REFERENCES", 20)
    monkeypatch.setattr(drift, "_DRAWS", 50)
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"
