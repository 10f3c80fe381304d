from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgewise.forge.optimize
from edgewise.contracts.project import Project
from edgewise.contracts.run import Run
from edgewise.forge.measure.agent_lab import AgentLab
from edgewise.forge.progress import Progress
from tests.unit.cli.models import small
from tests.unit.report import runs
from tests.unit.runtimes.models import serialised


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are drawn as for a pipe, whatever width runs the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


class Call(msgspec.Struct):
    """What the command line asked of `optimize`."""

    project: Project
    base: Path
    output: Path
    cluster: str | None
    lab: AgentLab | None
    fresh: bool


class Optimizer:
    """Stands in for `forge.optimize.optimize`: keeps the calls, writes evidence, returns or raises."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.run = runs.run()
        self.error: BaseException | None = None
        self.act: Callable[[], None] = lambda: None

    @property
    def call(self) -> Call:
        return self.calls[-1]

    def __call__(
        self,
        project: Project,
        *,
        base: Path,
        output: Path,
        progress: Progress,
        cluster: str | None,
        lab: AgentLab | None,
        fresh: bool,
    ) -> Run:
        self.calls.append(Call(project, base, output, cluster, lab, fresh))
        progress.start("calibrate", 3)
        progress.advance(2)
        progress.note("a note")
        (output / ".edgewise" / "model").mkdir(parents=True, exist_ok=True)
        self.act()
        if self.error is not None:
            raise self.error
        (output / "evidence.json").write_bytes(msgspec.json.encode(self.run))
        return self.run


@pytest.fixture
def optimizer(monkeypatch: pytest.MonkeyPatch) -> Optimizer:
    fake = Optimizer()
    monkeypatch.setattr(edgewise.forge.optimize, "optimize", fake)
    return fake


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, data and a config, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.onnx").write_bytes(serialised(small()))
    data = tmp_path / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("calibrate", 12), ("test", 6)):
        np.savez(data / f"{split}.npz", x=random.standard_normal((count, 3, 16, 16)).astype(np.float32))
    (tmp_path / "edgewise.toml").write_text(
        '[model]\npath = "model.onnx"\n[task]\ncalibrate = "data/calibrate.npz"\n'
        "[budget]\nsize_mib = 4\nflip_rate = 0.02\n"
    )
    return tmp_path
