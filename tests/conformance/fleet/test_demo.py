"""The demo's fleet, told again: a real server, agents that are processes, a good release and a slow one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.rollout import Answer, State
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo import demo_folder
from edgewise.demo.loop.releases import GOOD
from edgewise.demo.loop.story import tell
from edgewise.forge.optimize import optimize
from edgewise.forge.progress import Silent

DEVICES = 16
"""Fewer than a user sees, and enough that chance hardly ever leaves the last stage without a control."""


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
    optimize(project, base=demo_folder(), output=tmp_path / "run")
    return tmp_path / "run"


def test_a_good_release_reaches_every_device_and_a_slow_one_is_taken_back(run: Path) -> None:
    story = tell(run, devices=DEVICES, progress=Silent())
    told = [each.words for each in story.moments]
    assert [each.rollout.state for each in story.ended] == [State.COMPLETED, State.ROLLED_BACK], told
    assert [each.devices for each in story.ended] == [{GOOD: DEVICES}, {GOOD: DEVICES}], told
    assert story.as_told
    good, bad = (each.rollout for each in story.ended)
    assert good.last is not None
    assert good.last.answer is Answer.PROMOTE
    assert bad.last is not None
    assert bad.last.answer is Answer.ROLLBACK
    assert bad.promoted == 0, "the slow release went beyond its canaries"
    assert "latency_ms.p50" in bad.last.reason
    assert story.answers[OutcomeKind.LOCAL] > 0
    assert OutcomeKind.REFUSED not in story.answers
