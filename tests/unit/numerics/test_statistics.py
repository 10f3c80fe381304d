"""Statistics against scipy, numpy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from edgewise.numerics import statistics as ours


def test_summary() -> None:
    s = ours.summary(np.arange(101.0))
    assert (s.p50, s.p90, s.p99, s.max) == (50, 90, 99, 100)
    with pytest.raises(ValueError, match="no values"):
        ours.summary([])


def test_median_ratio_interval_holds_the_truth_at_its_level() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        slow = rng.lognormal(0, 0.3, 40)  # shared by both sides of a round
        interval = ours.median_ratio_interval(
            2.0 * slow * rng.lognormal(0, 0.05, 40), slow, generator=rng, resamples=400, level=0.9
        )
        held += interval.low <= 2.0 <= interval.high
        assert interval.high - interval.low < 0.2
    assert 0.8 < held / 200 < 0.98


def test_median_ratio_interval_is_reproducible_and_refuses_nothing() -> None:
    rounds = np.random.default_rng(1).uniform(1, 2, (2, 30))
    one, two = (ours.median_ratio_interval(*rounds, generator=np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert one.level == 0.95
    with pytest.raises(ValueError, match="no values"):
        ours.median_ratio_interval([], [], generator=np.random.default_rng(0))


def test_median_ratio_interval_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = np.random.default_rng(1).uniform(1, 2, (2, 30))
    whole = ours.median_ratio_interval(*rounds, generator=np.random.default_rng(7))
    monkeypatch.setattr(ours, "_VALUES_AT_ONCE", 1000)
    assert ours.median_ratio_interval(*rounds, generator=np.random.default_rng(7)) == whole


def test_mean_interval() -> None:
    interval = ours.mean_interval(np.arange(100.0))
    expected = scipy.stats.norm.interval(0.95, 49.5, scipy.stats.sem(np.arange(100.0)))
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert ours.mean_interval([3.0]).high == math.inf


def test_share_interval_of_nothing() -> None:
    for successes, trials in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="of"):
            ours.share_interval(successes, trials)


def test_spearman_of_what_has_no_rank_correlation() -> None:
    assert math.isnan(ours.spearman([1, 1], [1, 2]))
    with pytest.raises(ValueError, match="2 and 3"):
        ours.spearman([1, 2], [1, 2, 3])


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    p, n = np.random.default_rng(0).integers(0, 9, (2, 40))
    pairs = np.mean((p[:, None] > n) + 0.5 * (p[:, None] == n))
    assert ours.auroc(p, n) == pytest.approx(pairs, rel=1e-9)
    assert ours.auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert math.isnan(ours.auroc([], [1.0]))


def test_softmax_is_scipys_and_does_not_overflow() -> None:
    x = np.random.default_rng(0).normal(size=(4, 5, 3)) * 100
    for axis in (-1, 0, 1):
        np.testing.assert_allclose(ours.softmax(x, axis=axis), scipy.special.softmax(x, axis=axis), rtol=1e-12)
        np.testing.assert_allclose(ours.log_softmax(x, axis=axis), scipy.special.log_softmax(x, axis=axis), atol=1e-12)
    assert ours.softmax([1e30, 0.0]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("reference", "candidate", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("same", "same", 0)],
)
def test_edit_distance(reference: str, candidate: str, distance: int) -> None:
    assert ours.edit_distance(reference, candidate) == distance
    assert ours.edit_distance(reference.split(), reference.split()) == 0


def test_edit_distance_of_words() -> None:
    assert ours.edit_distance(["the", "cat", "sat", "on", "the", "mat"], ["a", "cat", "sat", "the", "mat", "mat"]) == 3
