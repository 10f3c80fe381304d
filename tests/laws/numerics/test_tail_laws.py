from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats

from edgewise.numerics.tails import (
    beta_quantile,
    binomial_at_least,
    binomial_at_most,
    fisher_more,
    incomplete_beta,
    share_above,
    share_below,
    student_quantile,
    student_tail,
)

PARAMETER = st.floats(0.3, 3000)
INSIDE = st.floats(1e-6, 1 - 1e-6)


@given(a=PARAMETER, b=PARAMETER, x=INSIDE)
def test_the_incomplete_beta_function_is_that_of_scipy(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(float(special.betainc(a, b, x)), rel=1e-9, abs=1e-200)


@given(a=PARAMETER, b=PARAMETER, p=st.floats(1e-9, 1 - 1e-9))
def test_its_quantile_turns_it_around(a: float, b: float, p: float) -> None:
    x = beta_quantile(a, b, p)
    near = [incomplete_beta(a, b, min(max(x * (1 + e), 0.0), 1.0)) for e in (-1e-9, 1e-9)]
    assert min(near) - 1e-9 <= p <= max(near) + 1e-9


@given(t=st.floats(-60, 60), degrees=st.floats(2, 500))
@example(t=1.192092896e-07, degrees=128.0)
def test_student_tails_are_those_of_scipy(t: float, degrees: float) -> None:
    assert student_tail(t, degrees) == pytest.approx(float(stats.t.sf(t, degrees)), rel=1e-8)


@given(p=st.floats(1e-12, 1 - 1e-9), degrees=st.floats(2, 500))
def test_student_quantiles_are_those_of_scipy(p: float, degrees: float) -> None:
    assert student_quantile(p, degrees) == pytest.approx(float(stats.t.isf(p, degrees)), rel=1e-6, abs=1e-6)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), p=INSIDE)
def test_binomial_tails_are_those_of_scipy(n: int, share: float, p: float) -> None:
    k = round(share * n)
    assert binomial_at_least(k, n, p) == pytest.approx(float(stats.binom.sf(k - 1, n, p)), rel=1e-7, abs=1e-290)
    assert binomial_at_most(k, n, p) == pytest.approx(float(stats.binom.cdf(k, n, p)), rel=1e-7, abs=1e-290)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), level=st.floats(1e-6, 0.4))
def test_exact_bounds_reject_with_their_level(n: int, share: float, level: float) -> None:
    k = round(share * n)
    low, high = share_below(k, n, level), share_above(k, n, level)
    assert 0 <= low <= k / n <= high <= 1
    if low > 0:
        assert binomial_at_least(k, n, low) == pytest.approx(level, rel=1e-6)
    if high < 1:
        assert binomial_at_most(k, n, high) == pytest.approx(level, rel=1e-6)


@given(a=st.integers(0, 60), b=st.integers(0, 60), c=st.integers(0, 60), d=st.integers(0, 60))
def test_fisher_is_that_of_scipy(a: int, b: int, c: int, d: int) -> None:
    if a + b and c + d:
        expected = stats.fisher_exact(np.array([[a, b], [c, d]]), alternative="greater")[1]
        assert fisher_more(a, a + b, c, c + d) == pytest.approx(float(expected), rel=1e-7)


def test_impossible_and_certain_levels_have_quantiles() -> None:
    assert student_quantile(0.0, 5) == math.inf
    assert (beta_quantile(2, 3, 0.0), beta_quantile(2, 3, 1.0)) == (0.0, 1.0)
