"""A small trained model, its data, an int8 variant, and the folder of a run: what verification is tested with."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgewise.contracts.budget import Budget, judge
from edgewise.contracts.project import ModelConfig, Project, RunProject
from edgewise.contracts.recipe import Format, RangeMethod, Recipe, RegionRecipe
from edgewise.contracts.run import BudgetEvidence, Chosen
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.contracts.verification import Depth
from edgewise.demo import demo_folder
from edgewise.forge.calibrate import calibrate
from edgewise.forge.data.open import open_dataset
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.lower.lowering import lower
from edgewise.forge.regions import regions_of
from edgewise.forge.verify import cost
from edgewise.forge.verify import open as opening
from edgewise.forge.verify import verify as verifying
from edgewise.forge.verify.streams.suite import streams
from edgewise.forge.verify.suites import SUITES
from edgewise.forge.weights import Corrections, parameters_for
from edgewise.runtimes import runtime
from tests.unit.report import runs

SAMPLES = 400
TASK = TaskConfig(kind=TaskKind.CLASSIFICATION, calibrate="calibrate.npz", test="test.npz")


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_SECONDS", dict.fromkeys(Depth, 0.1))
    monkeypatch.setattr(opening, "_SECONDS", dict.fromkeys(Depth, 0.5))
    # What a busy machine does to a stream is no fault of a variant: `test_streams_imposed` runs that suite.
    monkeypatch.setattr(verifying, "SUITES", tuple(each for each in SUITES if each[1] is not streams))


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
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model as the import leaves it: a process of its own each time, so once for all."""
    work = tmp_path_factory.mktemp("imported")
    return import_model(str(demo_folder() / "model.onnx"), base=work, inputs={}, work=work).normalised


@pytest.fixture(scope="session")
def recipe_and_int8(data: Path) -> tuple[Recipe, Path]:
    """A recipe that puts every convolution into int8, and the variant that it makes."""
    work = data / "work"
    imported = import_model("model.onnx", base=data, inputs={}, work=work)
    graph = Graph(onnx.load(str(imported.normalised)))
    regions = regions_of(graph)
    execute = runtime(RuntimeName.ONNXRUNTIME)
    pool = open_dataset(data / "calibrate.npz", config=TASK, inputs=execute.load(imported.original).inputs)
    found = calibrate(graph, regions, pool, range(0, SAMPLES, 4), runtime=execute, threads=1)
    recipe = Recipe(
        name="convolutions int8",
        regions=tuple(
            RegionRecipe(region=each.name, format=Format.INT8_STATIC, range_method=RangeMethod.MSE)
            for each in regions
            if str(each.op) == "Conv" and Format.INT8_STATIC in each.formats
        ),
    )
    model = lower(graph, regions, recipe, parameters_for(graph, regions, recipe, found, Corrections()))
    path = data / "int8.onnx"
    onnx.save(model, path)
    return recipe, path


@pytest.fixture(scope="session")
def int8(recipe_and_int8: tuple[Recipe, Path]) -> Path:
    """A good variant."""
    return recipe_and_int8[1]


@pytest.fixture(scope="session")
def demo_run(data: Path, recipe_and_int8: tuple[Recipe, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that chose the variant, as `optimize` writes it."""
    folder = tmp_path_factory.mktemp("run")
    recipe, variant = recipe_and_int8
    (folder / "variants").mkdir()
    shutil.copy(variant, folder / "variants" / "int8.onnx")
    budget = Budget(size_mib=0.6)
    figures = runs.figures(speedup=1.5)
    chosen = Chosen(**msgspec.structs.asdict(figures) | {"path": "elsewhere/int8.onnx"}, name="int8", recipe=recipe)
    verdicts = judge(budget, chosen, figures)
    run = runs.run(
        model="model.onnx", chosen=chosen, budget=BudgetEvidence(limits=budget, verdicts=verdicts, fits=True)
    )
    (folder / "evidence.json").write_bytes(msgspec.json.encode(run))
    project = Project(model=ModelConfig(path="model.onnx"), task=TASK, budget=budget)
    (folder / "project.json").write_bytes(msgspec.json.encode(RunProject(base=str(data), project=project)))
    return folder
