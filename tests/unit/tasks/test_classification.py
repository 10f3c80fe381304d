from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.forge.tasks.base import Array
from edgewise.forge.tasks.classification import NO_ANSWER, Classification

TASK = Classification(classes=3)
LOGITS = hnp.arrays(np.float32, (1, 7), elements=st.floats(-50, 50, width=32))


def outputs(*scores: float) -> tuple[Array, ...]:
    return (np.array([scores], np.float32),)


def test_top1_is_the_share_of_right_labels() -> None:
    predictions = [TASK.predict(outputs(*row), {}) for row in ((3, 1, 0), (0, 2, 1), (0, 2, 1), (0, 0, 9))]
    score = TASK.score(predictions, [0, 1, 2, 2])
    assert score is not None
    assert score.value == 0.75
    assert score.metrics == {"top1": 0.75}


def test_top5_appears_with_ten_classes() -> None:
    task = Classification(classes=12)
    scores = np.arange(12, dtype=np.float32)[None]
    predictions = [task.predict((scores,), {})] * 2
    score = task.score(predictions, [7, 6])
    assert score is not None
    assert score.metrics == {"top1": 0.0, "top5": 0.5}


def test_no_labels_no_score() -> None:
    assert TASK.score([TASK.predict(outputs(1, 2, 3), {})], [None]) is None


def test_the_first_class_wins_a_tie_as_with_argmax() -> None:
    assert TASK.predict(outputs(1, 5, 5), {})[0] == 1


def test_outputs_that_are_not_finite_are_wrong_and_flip() -> None:
    broken = TASK.predict(outputs(np.nan, 1, 2), {})
    good = TASK.predict(outputs(0, 1, 2), {})
    assert broken[0] == NO_ANSWER
    assert TASK.flips([good], [broken]).tolist() == [True]
    assert TASK.divergence(outputs(0, 1, 2), outputs(np.nan, 1, 2)) == np.inf
    assert TASK.margin(outputs(np.nan, 1, 2)) is None


def test_divergence_is_kl_of_the_softmax() -> None:
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])
    expected = float((p * np.log(p / q)).sum())
    assert TASK.divergence((np.log(p)[None] + 3,), (np.log(q)[None] - 1,)) == pytest.approx(expected)


def test_stored_probabilities_are_not_put_through_a_second_softmax() -> None:
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.3, 0.2]])
    expected = float((p * np.log(p / q)).sum())
    assert TASK.divergence((p,), (q,)) == pytest.approx(expected, rel=1e-4)


def test_a_quantized_softmax_with_zeros_stays_finite() -> None:
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.7, 0.25, 0.0]])
    assert 0 < TASK.divergence((p,), (q,)) < 2


def test_margin_is_between_the_best_two_probabilities() -> None:
    assert TASK.margin((np.array([[0.7, 0.2, 0.1]]),)) == pytest.approx(0.5, abs=1e-4)


def test_a_feature_map_of_one_pixel_is_a_row_of_classes() -> None:
    assert TASK.predict((np.array([1, 5, 2], np.float32).reshape(1, 3, 1, 1),), {}).tolist() == [1, 2, 0]


def test_only_another_top_class_is_a_flip() -> None:
    reference = [TASK.predict(outputs(*row), {}) for row in ((3, 1, 0), (3, 1, 0))]
    candidate = [TASK.predict(outputs(*row), {}) for row in ((3, 0, 1), (1, 3, 0))]
    assert TASK.flips(reference, candidate).tolist() == [False, True]


def test_answers_use_names() -> None:
    named = Classification(classes=2, names=("cat", "dog"))
    assert named.answer(np.array([1, 0])) == "dog"
    assert TASK.answer(np.array([2, 1, 0])) == "2"


@given(LOGITS)
def test_divergence_of_equal_outputs_is_zero(logits: Array) -> None:
    assert TASK.divergence((logits,), (logits.copy(),)) == 0


@given(LOGITS, LOGITS)
def test_divergence_is_never_negative_and_flips_are_symmetric(left: Array, right: Array) -> None:
    assert TASK.divergence((left,), (right,)) >= 0
    a, b = TASK.predict((left,), {}), TASK.predict((right,), {})
    assert TASK.flips([a], [b]).tolist() == TASK.flips([b], [a]).tolist()
    assert not TASK.flips([a], [a]).any()
