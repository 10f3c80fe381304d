"""Intervals of differences and of any statistic, against published values and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.numerics.bootstrap import bca_interval, percentile_interval
from edgewise.numerics.paired import score_statistic, share_difference_interval


def test_tango_as_published() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014): bronchial reactivity, n = 21."""
    found = share_difference_interval(1, 7, 21)
    assert [found.low, found.high] == pytest.approx([-0.517, -0.026], abs=5e-4)


@pytest.mark.parametrize(("b", "c", "n"), [(3, 11, 90), (40, 2, 300), (0, 4, 25), (12, 12, 60)])
def test_the_ends_are_where_the_score_test_rejects(b: int, c: int, n: int) -> None:
    found = share_difference_interval(b, c, n)
    for end in (found.low, found.high):
        assert abs(score_statistic(b, c, n, end)) == pytest.approx(1.959964, abs=1e-5)


def test_no_discordant_sample_still_leaves_room() -> None:
    found = share_difference_interval(0, 0, 100)
    assert -0.05 < found.low < -0.03
    assert found.high == pytest.approx(-found.low)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"\d of"):
        share_difference_interval(*counts)


def test_an_undefined_statistic_has_no_interval() -> None:
    def undefined(drawn: NDArray[np.intp]) -> float:
        return float("nan") if len(np.unique(drawn)) < 20 else 1.0

    for interval in (bca_interval, percentile_interval):
        assert interval(undefined, 20, generator=np.random.default_rng(0), resamples=100) is None


def test_a_constant_statistic_has_an_interval_without_width() -> None:
    found = bca_interval(lambda _: 2.0, 5, generator=np.random.default_rng(0), resamples=50)
    assert found is not None
    assert (found.low, found.high) == (2, 2)
