from __future__ import annotations

import pickle  # noqa: TID251 - tasks travel to worker processes
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import TaskError
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.user import UserTask, is_user_task, load_user_task

GOOD = """
import numpy as np

class Mine:
    metric = "distance"
    higher_is_better = False

    def samples(self, split):
        for index in range(3):
            yield {"x": np.full((1, 2), index, np.float32)}, index

    def score(self, outputs, targets):
        return sum(abs(float(each[0][0, 0]) - target) for each, target in zip(outputs, targets))
"""


def load(folder: Path, source: str, name: str = "Mine") -> UserTask:
    (folder / "task.py").write_text(source)
    return load_user_task(f"task.py:{name}", folder=folder)


def test_two_methods_are_a_task(tmp_path: Path) -> None:
    task = load(tmp_path, GOOD)
    assert (task.kind, task.metric, task.higher_is_better) == ("task.py:Mine", "distance", False)
    assert [target for _, target in task.samples("test")] == [0, 1, 2]
    outputs = (np.array([[3.0]]),)
    assert task.predict(outputs, {}) is outputs
    score = task.score([outputs, outputs], [1, 3])
    assert score is not None
    assert score.metrics == {"distance": 2.0}
    plain: Task = task
    assert plain.flips([outputs], [outputs]) is None
    assert task.divergence(outputs, outputs) == 0
    assert (task.answer(outputs), task.margin(outputs)) == ("", None)


def test_defaults_and_optional_methods(tmp_path: Path) -> None:
    source = """
class Mine:
    def samples(self, split): return None
    def score(self, outputs, targets): return outputs[0]
    def predict(self, outputs): return 7
    def divergence(self, a, b): return 0.5
"""
    task = load(tmp_path, source)
    assert (task.metric, task.higher_is_better) == ("score", True)
    assert list(task.samples("test")) == []
    score = task.score([task.predict((np.zeros(1),), {})], [None])
    assert score is not None
    assert score.value == 7
    assert task.divergence((np.zeros(1),), (np.zeros(1),)) == 0.5


def test_it_travels_to_another_process(tmp_path: Path) -> None:
    task = pickle.loads(pickle.dumps(load(tmp_path, GOOD)))  # noqa: S301 - written here
    assert task.metric == "distance"
    assert len(list(task.samples("test"))) == 3


def test_it_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_my_task.py").write_text("SCORE = 0.25")
    path = list(sys.path)
    task = load(tmp_path, "from beside_my_task import SCORE" + GOOD.replace("sum(", "SCORE + 0 * sum("))
    score = task.score([], [])
    assert score is not None
    assert score.value == 0.25
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Other:\n    score = 1", "no class 'Mine', only Other"),
        ("class Mine:\n    def score(self, o, t): return 1", "no method samples"),
        ("class Mine: pass", "no method samples and no method score"),
        ("class Mine(:", r"SyntaxError.*task\.py:1"),
        ("import not_a_module_at_all", r"ModuleNotFoundError.*task\.py:1: import not_a_module_at_all"),
        ("raise SystemExit(3)", "SystemExit"),
        (GOOD + "    def __init__(self):\n        self.x = 1 / 0", r"ZeroDivisionError.*self\.x = 1 / 0"),
        (GOOD.replace('"distance"', "3"), "metric is 3"),
        (GOOD.replace("False", '"no"'), "higher_is_better is 'no'"),
    ],
)
def test_files_that_are_no_task(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        load(tmp_path, source)


@pytest.mark.parametrize("kind", ["gone.py:Mine", "task.txt:Mine", "task.py:", "task.py:not a name", ":Mine"])
def test_names_that_are_no_class_in_a_file(tmp_path: Path, kind: str) -> None:
    assert is_user_task(kind)
    with pytest.raises(TaskError, match=r"file\.py:Class|does not exist"):
        load_user_task(kind, folder=tmp_path)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ("return 3", "returned int"),
        ("return [1]", "gave int instead of a pair"),
        ("raise KeyError(split)", r"samples failed: KeyError.*raise KeyError\(split\)"),
        ("yield {}, 1\n        yield [][1], 2", r"samples failed: IndexError.*yield \[\]\[1\], 2"),
    ],
)
def test_samples_that_fail(tmp_path: Path, samples: str, said: str) -> None:
    task = load(
        tmp_path, f"class Mine:\n    def samples(self, split):\n        {samples}\n    def score(self, o, t): ..."
    )
    with pytest.raises(TaskError, match=said):
        list(task.samples("test"))


@pytest.mark.parametrize(
    ("value", "said"), [("None", "returned None"), ("float('nan')", "nan"), ("1 / 0", "ZeroDivisionError")]
)
def test_scores_that_fail(tmp_path: Path, value: str, said: str) -> None:
    task = load(tmp_path, f"class Mine:\n    def samples(self, split): ...\n    def score(self, o, t): return {value}")
    with pytest.raises(TaskError, match=said):
        task.score([], [])


def test_a_divergence_that_is_no_number(tmp_path: Path) -> None:
    task = load(tmp_path, GOOD + "\n    def divergence(self, a, b): return 'far'")
    with pytest.raises(TaskError, match="divergence returned str"):
        task.divergence((), ())
