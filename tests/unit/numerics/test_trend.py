from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import theilslopes

from edgewise.numerics.trend import _student, slope_interval, theil_sen


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_the_slope_is_that_of_scipy(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    x, y = np.cumsum(random.uniform(0.1, 1, count)), random.normal(size=count)
    assert theil_sen(x, y) == pytest.approx(theilslopes(y, x).slope, abs=1e-12)


def test_a_quarter_of_wild_points_changes_nothing() -> None:
    x = np.arange(40.0)
    y = 3 * x
    y[::5] = 1e6
    assert theil_sen(x, y) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="one place"):
        theil_sen([1.0, 1.0], [2.0, 3.0])


@pytest.mark.parametrize("shared", [1, 3])
def test_the_interval_covers_the_slope_also_where_neighbours_share_their_noise(shared: int) -> None:
    x, covered = np.arange(40.0), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        noise = np.convolve(random.normal(size=39 + shared), np.ones(shared) / shared, "valid")
        found = slope_interval(x, 0.1 * x + noise, generator=random, resamples=200)
        covered += found.low <= 0.1 <= found.high
    assert 0.92 <= covered / 200 <= 0.98


@pytest.mark.parametrize("freedom", [3.0, 4.7, 10.0, 40.0])
def test_students_quantile_is_that_of_scipy(freedom: float) -> None:
    assert _student(0.95, freedom) == pytest.approx(student.ppf(0.975, freedom), rel=0.005)


def test_without_noise_the_interval_is_the_slope() -> None:
    found = slope_interval(np.arange(30.0), np.full(30, 7.0), generator=np.random.default_rng(0))
    assert (found.low, found.high) == (0.0, 0.0)
    with pytest.raises(ValueError, match="24 points"):
        slope_interval(np.arange(24.0), np.arange(24.0), generator=np.random.default_rng(0))
