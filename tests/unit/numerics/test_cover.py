from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.numerics.cover import farthest_first, greedy_cover


def covered(covers: np.ndarray, weights: np.ndarray, rows: tuple[int, ...] | list[int]) -> float:
    return float(weights[covers[list(rows)].any(axis=0)].sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_greedy_is_within_its_bound_and_adds_the_largest_gain_each_time(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    covers, weights = random.random((8, 12)) < 0.25, random.random(12)
    rows = greedy_cover(covers, weights, count)
    best = max(covered(covers, weights, some) for some in combinations(range(8), count))
    assert covered(covers, weights, rows) >= (1 - 1 / np.e) * best - 1e-12
    done: list[int] = []
    for row in rows:  # as a plain greedy, which computes all gains anew
        gain = covered(covers, weights, [*done, row]) - covered(covers, weights, done)
        largest = max(covered(covers, weights, [*done, each]) - covered(covers, weights, done) for each in range(8))
        if largest <= 1e-12:
            break
        assert gain == pytest.approx(largest)
        done.append(row)


def test_equal_gains_go_to_the_farthest_and_then_the_count_starts_anew() -> None:
    covers = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], np.bool_)
    rows = greedy_cover(covers, np.array([1.0, 1.0]), 4, reach=np.array([0.1, 0.9, 0.5, 1.0]))
    assert rows == [1, 2, 0, 3]
    with pytest.raises(ValueError, match="5 of 4"):
        greedy_cover(covers, np.array([1.0, 1.0]), 5)


def test_farthest_first_takes_the_corners() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [0, 10], [5, 5], [5, 4.9]])
    assert set(farthest_first(points, 4, start=0)) == {0, 2, 3, 4}
    assert sorted(farthest_first(np.zeros((3, 2)), 3)) == [0, 1, 2]
