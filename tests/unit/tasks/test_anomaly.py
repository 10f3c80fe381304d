from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.anomaly import Anomaly, check_outputs
from edgewise.forge.tasks.base import Task
from edgewise.runtimes.base import TensorSpec

TASK: Task = Anomaly()


def test_a_single_number_is_the_score() -> None:
    assert TASK.predict((np.array([[0.25]]),), {}) == 0.25
    assert TASK.predict((np.array([[np.nan]]),), {}) == np.inf


def test_an_output_like_the_input_is_judged_by_its_error() -> None:
    feeds = {"other": np.ones((1, 2)), "x": np.zeros((1, 3))}
    assert TASK.predict((np.array([[1.0, 2.0, 2.0]]),), feeds) == 3
    with pytest.raises(TaskError, match="no input"):
        TASK.predict((np.zeros((1, 4)),), feeds)


def test_score_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = np.random.default_rng(0)
    scores, labels = np.round(generator.normal(size=60), 1), generator.integers(0, 2, 60)
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    found = TASK.score(scores.tolist(), labels.tolist())
    assert found is not None
    assert found.value == pytest.approx(np.mean(pairs))


def test_one_kind_of_labels_alone_gives_no_score() -> None:
    assert TASK.score([1.0, 2.0], [0, 0]) is None
    assert TASK.score([1.0, 2.0], [1, 1]) is None
    assert TASK.score([1.0, 2.0], [None, None]) is None


def test_other_labels_are_refused() -> None:
    for label in (2, -1, "good", 0.5):
        with pytest.raises(DataError, match="anomaly label"):
            TASK.score([1.0, 2.0], [0, label])


def test_outputs_are_checked() -> None:
    image = TensorSpec("x", "float32", (None, 3, 8, 8))
    check_outputs((TensorSpec("s", "float32", (None, 1)),), (image,))
    check_outputs((TensorSpec("s", "float32", (1,)),), (image,))
    check_outputs((TensorSpec("y", "float32", (None, 3, 8, 8)),), (image,))
    for outputs in ((TensorSpec("y", "float32", (None, 2)),), ()):
        with pytest.raises(TaskError, match="one number"):
            check_outputs(outputs, (image,))


def test_there_is_no_top_answer() -> None:
    assert TASK.flips([1.0], [2.0]) is None
    assert TASK.margin((np.zeros((1, 1)),)) is None
    assert TASK.answer(0.123456) == "0.1235"


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_divergence_is_zero_only_for_equal_scores(one: float, two: float) -> None:
    a, b = (np.array([[one]]),), (np.array([[two]]),)
    assert TASK.divergence(a, a) == 0
    assert (TASK.divergence(a, b) > 0) == (one != two)
    assert TASK.divergence(a, (np.array([[np.nan]]),)) == np.inf
