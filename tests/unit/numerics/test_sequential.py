from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from edgewise.numerics.sequential import holm, nominal_levels, spent


def looks(count: int) -> tuple[float, ...]:
    return tuple(k / count for k in range(1, count + 1))


@pytest.mark.parametrize(
    ("count", "bounds"),
    # Jennison and Turnbull, Group Sequential Methods (2000), and R's gsDesign, sfLDOF, one-sided 0.025.
    [
        (1, [1.960]),
        (3, [3.710, 2.511, 1.993]),
        (4, [4.333, 2.963, 2.359, 2.014]),
        (5, [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_bounds_are_the_published_ones(count: int, bounds: list[float]) -> None:
    found = [-NormalDist().inv_cdf(level) for level in nominal_levels(looks(count), 0.025)]
    assert found == pytest.approx(bounds, abs=6e-4)


def test_a_walk_without_drift_crosses_as_often_as_was_said() -> None:
    walks, times = 200_000, np.array([0.3, 0.35, 0.7, 1.0])
    steps = np.random.default_rng(1).normal(size=(walks, 4)) * np.sqrt(np.diff(times, prepend=0.0))
    z = steps.cumsum(axis=1) / np.sqrt(times)
    bounds = [-NormalDist().inv_cdf(level) for level in nominal_levels(tuple(times), 0.1)]
    crossed = (z > bounds).any(axis=1).mean()
    assert crossed == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / walks))


def test_levels_of_looks_do_not_depend_on_later_ones() -> None:
    assert nominal_levels(looks(12), 0.025)[:5] == nominal_levels(looks(12)[:5], 0.025)


def test_all_is_spent_at_the_end_and_hardly_anything_early() -> None:
    assert spent(1.0, 0.025) == pytest.approx(0.025)
    assert spent(0.25, 0.025) < 1e-5


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.25), (0.5, 0.501), (1.1,), (0.0,)])
def test_looks_out_of_order_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="looks at"):
        nominal_levels(fractions, 0.025)


def test_holm_stops_at_the_first_that_is_kept() -> None:
    def level(share: float) -> float:
        return 0.05 * share

    assert holm([0.01, 0.04, 0.03, 0.005], [1, 1, 1, 1], level) == (True, False, False, True)
    assert holm([0.02, 0.02, 0.02, 0.02], [1, 1, 1, 1], level) == (False, False, False, False)


def test_a_heavier_hypothesis_has_more_of_the_error() -> None:
    def level(share: float) -> float:
        return 0.05 * share

    assert holm([0.03, 0.03], [2, 1], level) == (True, True)
    assert holm([0.04, 0.03], [2, 1], level) == (False, False)


def test_holm_errs_no_more_than_it_may() -> None:
    generator = np.random.default_rng(4)
    weights = [0.5, 0.25, 0.125, 0.125]
    wrong = sum(any(holm(generator.random(4).tolist(), weights, lambda share: 0.1 * share)) for _ in range(4000))
    assert wrong / 4000 == pytest.approx(0.1, abs=0.02)
