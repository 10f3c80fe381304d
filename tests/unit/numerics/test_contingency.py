"""Tests of counts, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgewise.numerics.contingency import (
    chi_squared,
    holm,
    permutation_p,
    stratified_excess,
)


def test_empty_rows_and_columns_say_nothing() -> None:
    assert chi_squared([[3, 0, 4], [0, 0, 0], [5, 0, 6]]).freedom == 1
    assert chi_squared([[0, 5], [0, 6]]).p == 1


def test_holm_is_that_of_the_paper_and_keeps_the_order_given() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_permutation_agrees_with_chi_squared_where_counts_are_large() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 5, 2000)
    hits = random.random(2000) < 0.2 + 0.03 * (groups == 1)
    table = [np.bincount(groups[mask], minlength=5) for mask in (hits, ~hits)]
    found = permutation_p(hits, groups, generator=random, permutations=20_000)
    assert found == pytest.approx(chi_squared(table).p, abs=0.015)


def test_permutation_is_uniform_where_nothing_differs_though_counts_are_tiny() -> None:
    random = np.random.default_rng(1)
    groups = np.arange(40) % 8
    p = [permutation_p(random.permutation(np.arange(40) < 4), groups, generator=random) for _ in range(300)]
    assert np.mean(np.array(p) <= 0.05) <= 0.08


def test_the_excess_of_one_stratum_is_hypergeometric() -> None:
    hits = np.array([True] * 6 + [False] * 14)
    mine = np.array([True, False] * 10)
    expected, z = stratified_excess(hits, mine, np.zeros(20))
    law = stats.hypergeom(20, 6, 10)
    assert expected == pytest.approx(law.mean())
    assert z == pytest.approx((3 - law.mean()) / law.std())


def test_what_the_strata_explain_is_no_excess() -> None:
    strata = np.repeat([0, 1], 500)
    hits = np.concatenate([np.arange(500) % 2 == 0, np.zeros(500, bool)])
    mine = np.concatenate([np.arange(500) < 400, np.arange(500) < 100])
    assert abs(stratified_excess(hits, mine, strata)[1]) < 1
    assert stratified_excess(hits, mine, np.zeros(1000))[1] > 5
