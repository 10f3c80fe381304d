from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.numerics.drift_rules import height, largest_gap, rate, run_length, shares_of, stability, walk
from edgewise.numerics.scores import channels, energies, extremes, margins


def test_the_rate_of_normal_values_is_twice_the_slack() -> None:
    values = np.random.default_rng(0).standard_normal(200_000)
    assert rate(values, 0.25) == pytest.approx(0.5, rel=0.03)  # 2 allowance / variance
    assert rate(3 * values, 0.75) == pytest.approx(0.5 / 3, rel=0.03)


def test_a_rate_is_finite_where_values_never_go_that_way() -> None:
    values = np.array([0.0] * 99 + [-1.0])
    assert 0 < rate(values, 0.5) < math.inf
    assert 0 < rate(np.ones(10), 0.1) < math.inf
    with pytest.raises(ValueError, match="allowance"):
        rate(values, 0.0)


def drawn(kind: str, generator: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float64]:
    if kind == "normal":
        return generator.standard_normal(size)
    return generator.exponential(size=size) if kind == "skewed" else (generator.random(size) < 0.1).astype(np.float64)


@pytest.mark.parametrize("kind", ["normal", "skewed", "two values"])
def test_good_walks_pass_the_height_less_often_than_was_said(kind: str) -> None:
    generator = np.random.default_rng(1)
    known = drawn(kind, generator, (200_000,))
    allowance = 0.25 * float(known.std())
    top = height(rate(known, allowance), inputs=1000, chance=0.2)
    runs = drawn(kind, generator, (400, 1000)) - known.mean() - allowance
    passed = sum(bool((walk(row, 0.0) > top).any()) for row in runs)
    assert passed / 400 < 0.2
    assert passed > 0  # the bound is not empty


def test_a_walk_is_the_sum_that_starts_anew_at_zero() -> None:
    steps = np.random.default_rng(2).normal(-0.1, 1, 500)
    total, expected = 0.7, []
    for step in steps:
        total = max(0.0, total + step)
        expected.append(total)
    assert walk(steps, 0.7) == pytest.approx(expected)
    halves = walk(steps[:200], 0.7)
    assert np.concatenate([halves, walk(steps[200:], float(halves[-1]))]) == pytest.approx(expected)


def test_so_many_windows_in_a_row_bound_the_chance() -> None:
    assert run_length(windows=1e5, exceeds=0.01, chance=0.01) == 4  # 1e5 * 1e-8 = 1e-3, of three 1e-1
    assert run_length(windows=1, exceeds=0.01, chance=0.5) == 1


def test_distances_of_shares() -> None:
    edges = np.array([1.0, 2.0])
    assert shares_of(np.array([0.0, 1.0, 1.5, 2.0]), edges).tolist() == [0.25, 0.5, 0.25]
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    assert float(largest_gap(p, q)) == pytest.approx(0.3)
    assert float(stability(p, q)) == pytest.approx(2 * 0.3 * math.log(2.5))
    assert math.isfinite(float(stability(np.array([0.0, 1.0]), np.array([1.0, 0.0]))))


def test_scores_of_rows() -> None:
    logits = np.array([[0.0, 1.0, 3.0], [5.0, 5.0, 5.0]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert margins(logits, stored=False) == pytest.approx([p[2] - p[1], 0.0])
    assert margins(np.array([[0.1, 0.2, 0.7]]), stored=True) == pytest.approx([0.5], abs=1e-5)
    assert energies(logits) == pytest.approx([math.log(np.exp(logits[0]).sum()), 5 + math.log(3)])
    assert np.isfinite(energies(np.array([[1e4, -1e4]]))).all()


def test_channels_are_the_second_axis_or_the_last() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert extremes(x, channels(x.shape, last=False), last=False).tolist() == [0, 12, 11, 23]
    assert extremes(x, channels(x.shape, last=True), last=True).tolist() == [0, 1, 2, 3, 20, 21, 22, 23]
    assert channels((1, 96, 96, 3), last=False) == 1
    assert extremes(x, 1, last=False).tolist() == [0, 23]
    assert channels((1, 40), last=False) == 1
