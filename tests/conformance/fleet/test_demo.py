"""The demo's fleet, told again: a real server, agents that are processes, a good release and a slow one."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.rollout import Answer, State
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo.loop import commands, devices, server, story
from edgewise.demo.loop.releases import GOOD
from edgewise.forge.optimize import optimize
from edgewise.forge.progress import Silent
from tests.unit.forge.children import small_demo

DEVICES = 12
"""Fewer than a user sees: of three canaries and nine others, the lots below hold four back to the end."""
START = """
import sys
if "serve" in sys.argv:
    from edgewise.fleet import conduct
    conduct.new_salt = lambda: "drawn by hand 001"
from edgewise.cli import start
start()
"""
"""As the demo's commands start, but that the server draws the same lots each time: few devices are enough then."""


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stages and what comes before them be short: each second is one of a server and of every agent."""
    monkeypatch.setattr(commands, "_EDGEWISE", (sys.executable, "-c", START))
    monkeypatch.setattr(story, "BASELINE_S", 6.0)
    stages = [msgspec.structs.replace(each, bake_s=8, decide_s=36, looks=12) for each in server.STAGES]
    monkeypatch.setattr(server, "STAGES", tuple(stages))
    monkeypatch.setattr(devices, "RATE_HZ", 10.0)  # few crashes are proven by many inferences


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run with a budget that only fp32 meets: on any machine it is as fast as the release before."""
    project = Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(kind=TaskKind.CLASSIFICATION, calibrate="calibrate.npz", test="test.npz"),
        budget=Budget(accuracy_drop=0.0, flip_rate=0.0),
        search=SearchConfig(effort=Effort.FAST, workers=1),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    optimize(project, base=small_demo(tmp_path / "data"), output=tmp_path / "run")  # each bundle is sealed over them
    return tmp_path / "run"


def test_a_good_release_reaches_every_device_and_a_slow_one_is_taken_back(run: Path, shorter: None) -> None:
    del shorter
    found = story.tell(run, devices=DEVICES, progress=Silent())
    told = [each.words for each in found.moments]
    assert [each.rollout.state for each in found.ended] == [State.COMPLETED, State.ROLLED_BACK], told
    assert [each.devices for each in found.ended] == [{GOOD: DEVICES}, {GOOD: DEVICES}], told
    assert found.as_told
    good, bad = (each.rollout for each in found.ended)
    assert good.last is not None
    assert good.last.answer is Answer.PROMOTE
    assert bad.last is not None
    assert bad.last.answer is Answer.ROLLBACK
    assert bad.promoted == 0, "the slow release went beyond its canaries"
    assert "latency_ms.p50" in bad.last.reason
    assert found.answers[OutcomeKind.LOCAL] > 0
    assert OutcomeKind.REFUSED not in found.answers
