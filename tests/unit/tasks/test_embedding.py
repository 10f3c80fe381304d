from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import DataError
from edgewise.forge.tasks.base import Array
from edgewise.forge.tasks.embedding import Embedding, Pair

TASK = Embedding()


def vectors(seed: int, count: int = 40, width: int = 8) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [TASK.predict((row[None],), {}) for row in generator.normal(size=(count, width))]


def plain_spearman(a: Array, b: Array) -> float:
    def ranks(values: Array) -> Array:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_score_is_spearman_of_the_pairs_wherever_the_halves_stand() -> None:
    found = vectors(0)
    scores = np.round(np.random.default_rng(1).uniform(0, 5, 20), 1)
    cosines = np.array([found[2 * i] @ found[2 * i + 1] for i in range(20)])
    targets = [Pair(index=i // 2, score=float(scores[i // 2])) for i in range(40)]
    score = TASK.score(found, targets)
    assert score is not None
    assert score.value == pytest.approx(plain_spearman(cosines, scores), abs=1e-6)
    order = np.random.default_rng(2).permutation(40)
    again = TASK.score([found[i] for i in order], [targets[i] for i in order])
    assert again is not None
    assert again.value == pytest.approx(score.value)


def test_a_pair_of_which_one_half_is_elsewhere_is_left_out() -> None:
    found = vectors(0, 7)
    targets = [Pair(index=i // 2, score=float(i)) for i in range(7)]
    whole, cut = TASK.score(found[:6], targets[:6]), TASK.score(found, targets)
    assert whole == cut
    assert TASK.score(found[:5], targets[:5]) is None  # two pairs correlate with anything


def test_no_pairs_no_score_and_other_labels_are_refused() -> None:
    assert TASK.score(vectors(0, 4), [None] * 4) is None
    with pytest.raises(DataError, match="pair"):
        TASK.score(vectors(0, 4), [1, 2, 3, 4])


def test_vectors_that_are_all_alike_correlate_with_nothing() -> None:
    same = [vectors(0, 1)[0]] * 6
    score = TASK.score(same, [Pair(index=i // 2, score=float(i // 2)) for i in range(6)])
    assert score is not None
    assert score.value == 0


def test_token_vectors_are_averaged_where_the_mask_is_set() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 5, 8))
    mask = np.array([[1, 1, 1, 0, 0]])
    expected = TASK.predict((tokens[:, :3].mean(1),), {})
    assert TASK.predict((tokens,), {"attention_mask": mask}) == pytest.approx(expected)
    assert TASK.predict((tokens[:, :3],), {}) == pytest.approx(expected)


def test_flips_are_new_nearest_neighbours() -> None:
    line = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.2]])
    moved = line.copy()
    moved[1] = (0.1, 0.9, 0)  # leaves the first, joins the others
    before = [TASK.predict((row[None],), {}) for row in line]
    after = [TASK.predict((row[None],), {}) for row in moved]
    assert TASK.flips(before, before).tolist() == [False] * 4
    assert TASK.flips(before, after).tolist() == [False, True, True, False]
    assert TASK.flips(before[:1], after[:1]).tolist() == [False]


def test_a_duplicate_of_the_neighbour_is_the_same_neighbour() -> None:
    rows = np.array([[1, 0.1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]])
    nudged = rows + np.array([[0, 0, 0], [1e-9, 0, 0], [0, 1e-9, 0], [0, 0, 0]])
    before = [TASK.predict((row[None],), {}) for row in rows]
    after = [TASK.predict((row[None],), {}) for row in nudged]
    assert not TASK.flips(before, after).any()


def test_telling_two_equal_neighbours_apart_is_no_flip() -> None:
    rows = np.array([[1, 0, 0], [0.9, 0.4, 0], [0.9, 0.4, 0], [0, 0, 1]])
    apart = rows.copy()
    apart[1] = (0.9, 0.6, 0)
    before = [TASK.predict((row[None],), {}) for row in rows]
    after = [TASK.predict((row[None],), {}) for row in apart]
    assert TASK.flips(before, after)[0] == TASK.flips(after, before)[0] == np.False_


def test_a_broken_vector_is_like_nothing_and_infinitely_far() -> None:
    good, broken = np.ones((1, 4)), np.full((1, 4), np.nan)
    assert TASK.predict((broken,), {}).tolist() == [0, 0, 0, 0]
    assert TASK.divergence((good,), (broken,)) == np.inf


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100))
def test_divergence_is_one_minus_cosine_whatever_the_length(seed: int, scale: float) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 1, 16))
    cosine = float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert TASK.divergence((a,), (b * scale,)) == pytest.approx(1 - cosine)
    assert TASK.divergence((a,), (a.copy(),)) == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_flips_are_symmetric(one: int, two: int) -> None:
    a, b = vectors(one, 12), vectors(two, 12)
    assert TASK.flips(a, b).tolist() == TASK.flips(b, a).tolist()


def test_many_vectors_are_compared_in_blocks() -> None:
    a, b = vectors(0, 1100), vectors(1, 1100)
    assert len(TASK.flips(a, b)) == 1100
    assert TASK.flips(a, b).mean() > 0.9
    assert TASK.answer(a[0]) == "vector of 8"
    assert TASK.margin((np.ones((1, 8)),)) is None
