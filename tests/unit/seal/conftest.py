from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig
from edgewise.forge.optimize import optimize
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


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it which is the current folder; data and model are found where they were."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"
