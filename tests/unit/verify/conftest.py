"""A small trained model, its data, and a run of `optimize` over both: what verification is tested with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo import demo_folder
from edgewise.forge.optimize import optimize

SAMPLES = 400


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of the demo, and a part of its images."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(demo_folder() / "model.onnx", folder)
    for split in ("calibrate", "test"):
        with np.load(demo_folder() / f"{split}.npz") as arrays:
            np.savez(folder / f"{split}.npz", **{name: arrays[name][:SAMPLES] for name in arrays.files})
    return folder


@pytest.fixture(scope="session")
def demo_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the fast effort, which chose an int8 variant."""
    folder = tmp_path_factory.mktemp("run")
    project = Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(kind=TaskKind.CLASSIFICATION, calibrate="calibrate.npz", test="test.npz"),
        budget=Budget(size_mib=0.4),
        search=SearchConfig(effort=Effort.FAST),
    )
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        optimize(project, base=data, output=folder)
    return folder


@pytest.fixture(scope="session")
def int8(demo_run: Path) -> Path:
    """The variant that the run chose."""
    (variant,) = (demo_run / "variants").glob("*.onnx")
    return variant
