"""Every kind of task is verified: what does not apply is absent or said to be, and nothing breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgewise.contracts.verification import Grade
from edgewise.forge.tasks.anomaly import Anomaly
from edgewise.forge.tasks.base import Array, Task
from edgewise.forge.tasks.detection import BOXES, Detection
from edgewise.forge.tasks.embedding import Embedding, Pair
from edgewise.forge.tasks.generic import Generic
from edgewise.forge.tasks.speech import Speech
from edgewise.forge.verify import scores
from tests.unit.verify.subjects_by_hand import examined, subject

SAMPLES = 60
RANDOM = np.random.default_rng(0)


def _boxes() -> Array:
    corners = RANDOM.uniform(0, 40, (SAMPLES, 4, 2))
    sizes = RANDOM.uniform(5, 20, (SAMPLES, 4, 2))
    scores = RANDOM.uniform(0.3, 1, (SAMPLES, 4, 1))
    return np.concatenate([corners, corners + sizes, scores, np.zeros((SAMPLES, 4, 1))], axis=2).astype(np.float32)


VECTORS = RANDOM.normal(size=(SAMPLES, 8)).astype(np.float32)
BOX_ROWS = _boxes()
FRAMES = RANDOM.normal(size=(SAMPLES, 12, 6)).astype(np.float32) * 3

TASKS: dict[str, tuple[Task, Array, list[Any]]] = {
    "embedding": (Embedding(), VECTORS, [Pair(index=at // 2, score=at // 2 % 5) for at in range(SAMPLES)]),
    "anomaly": (Anomaly(), RANDOM.normal(size=(SAMPLES, 1)).astype(np.float32), [at % 2 for at in range(SAMPLES)]),
    "detection": (Detection(layout=BOXES), BOX_ROWS, [rows[:, [5, 0, 1, 2, 3]] for rows in BOX_ROWS]),
    "speech": (Speech(), FRAMES, [np.array([1, 2, 3])] * SAMPLES),
    "generic": (Generic(), VECTORS, [None] * SAMPLES),
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval of 2000 rank correlations or error rates takes seconds; here it matters that there is one."""
    monkeypatch.setattr(scores, "_RESAMPLES", 200)


@pytest.mark.parametrize(("task", "outputs", "targets"), TASKS.values(), ids=TASKS)
def test_fp32_against_itself_passes(task: Task, outputs: Array, targets: list[Any]) -> None:
    groups = ["a" if at % 4 < 2 else "b" for at in range(SAMPLES)]
    section = examined(subject(outputs, outputs, targets, task=task, groups=groups))
    assert {each.grade for each in section.findings} <= {Grade.PASS, Grade.NOTED, Grade.UNAVAILABLE}


@pytest.mark.parametrize(("task", "outputs", "targets"), TASKS.values(), ids=TASKS)
def test_outputs_that_are_lost_do_not_pass(task: Task, outputs: Array, targets: list[Any]) -> None:
    broken = np.full_like(outputs, np.nan)
    section = examined(subject(outputs, broken, targets, task=task))
    assert Grade.FAIL in {each.grade for each in section.findings}
