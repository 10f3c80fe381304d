"""What tests run in a process of its own: `python -m tests.unit.forge.children NAME ARGUMENTS`."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
from onnx import helper

from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig, TargetConfig
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.demo import demo_folder
from edgewise.forge.calibrate import calibrate
from edgewise.forge.graph import Graph
from edgewise.forge.optimize import optimize
from edgewise.forge.regions import regions_of
from edgewise.forge.search.plan import PLANS, SearchPlan
from edgewise.forge.tasks.base import Sample
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.forge.nets import Workshop, conv, conv_values
from tests.unit.runtimes.models import model_of

ROOT = Path(__file__).parents[3]


def small_demo(folder: Path) -> Path:
    """Write the packaged demo with fewer samples into `folder`: 40 to calibrate and select with, 120 to test."""
    shutil.copy(demo_folder() / "model.onnx", folder)
    for name, count in (("calibrate", 40), ("test", 120)):
        with np.load(demo_folder() / f"{name}.npz") as arrays:
            np.savez(folder / name, **{key: value[:count] for key, value in arrays.items()})
    return folder


def quick_plan() -> SearchPlan:
    """Return the plan of the default effort with every step in it, each cut short."""
    return msgspec.structs.replace(
        PLANS[Effort.DEFAULT], clipped_tensors=3, sensitivity_samples=4, moment_samples=16, measure_seconds=2.0
    )


def demo_project(effort: Effort, budget: Budget | None = None) -> Project:
    """Return the packaged demo as a project that judges in its own process."""
    return Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(calibrate="calibrate.npz", test="test.npz"),
        budget=budget or Budget(),
        search=SearchConfig(effort=effort, workers=1, seed=5),
    )


def on_both(effort: Effort, *runtimes: RuntimeName) -> Project:
    """Return the same project with these runtimes; without any, ONNX Runtime and then OpenVINO."""
    target = TargetConfig(runtimes=runtimes or tuple(RuntimeName))
    return msgspec.structs.replace(demo_project(effort), target=target)


class Generated:
    """So many random images, made when they are read."""

    name = "generated"

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> Sample:
        image = np.random.default_rng(index).standard_normal((1, 3, 64, 64)).astype(np.float32)
        return Sample(feeds={"x": image})

    def digest(self) -> str:
        return "generated"


def calibrate_so_many(count: int) -> None:
    """Calibrate over `count` samples and print this process's peak memory in KiB."""
    random = np.random.default_rng(0)
    values = conv_values(random, "one", 8, 3, 3) | conv_values(random, "two", 8, 8, 3)
    nodes = [
        conv("one", "x", "one"),
        helper.make_node("Relu", ["one"], ["one_relu"], name="one_relu"),
        conv("two", "one_relu", "y"),
    ]
    graph = Graph(Workshop(model_of(nodes, inputs={"x": ["n", 3, 64, 64]}, outputs=["y"], values=values)).model)
    calibrate(graph, regions_of(graph), Generated(count), range(count), runtime=OnnxRuntime(), threads=1)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")


def main() -> None:
    match sys.argv[1:]:
        case ["optimize", data, output]:
            PLANS[Effort.DEFAULT] = quick_plan()
            optimize(demo_project(Effort.DEFAULT), base=Path(data), output=Path(output))
        case ["calibrate", count]:
            calibrate_so_many(int(count))
        case _:
            raise SystemExit(2)


if __name__ == "__main__":
    main()
