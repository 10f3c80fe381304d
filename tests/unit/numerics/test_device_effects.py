from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgewise.numerics.device_effects import effect, spread
from edgewise.numerics.device_rates import Share, design_effect, difference_bounds

GENERATOR = np.random.default_rng(3)


def test_one_class_is_the_two_sample_t_test() -> None:
    canaries, controls = np.array([0.1, 0.12, 0.09, 0.11]), np.array([0.0, 0.03, -0.02, 0.04, -0.05, 0.01])
    of, controls_of = np.zeros(4, dtype=np.int64), np.zeros(6, dtype=np.int64)
    found = spread(canaries, of, controls, controls_of)
    assert found is not None
    change = effect(canaries, of, controls, controls_of, found)
    assert change is not None
    expected = stats.ttest_ind(canaries, controls, alternative="greater")
    assert change.p_above(0.0) == pytest.approx(expected.pvalue, rel=1e-9)
    assert change.p_below(0.2) == pytest.approx(stats.ttest_ind(canaries - 0.2, controls, alternative="less").pvalue)
    assert change.bounds(0.05)[0] == pytest.approx(expected.confidence_interval(0.95)[0])


def test_what_a_class_always_was_does_not_count() -> None:
    of, controls_of = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    shift = np.array([0.0, 5.0])
    noise, controls_noise = GENERATOR.normal(size=4) * 0.01, GENERATOR.normal(size=4) * 0.01
    found = spread(noise + shift[of], of, controls_noise + shift[controls_of], controls_of)
    assert found is not None
    change = effect(noise + shift[of], of, controls_noise + shift[controls_of], controls_of, found)
    assert change is not None
    assert abs(change.estimate) < 0.05
    assert change.error < 0.05


def test_canaries_that_scatter_are_given_their_own_spread() -> None:
    quiet, zeros = np.zeros(40) + np.tile([-0.01, 0.01], 20), np.zeros(40, dtype=np.int64)
    found = spread(np.array([-0.5, 0.5, -0.4, 0.4]), zeros[:4], quiet, zeros)
    assert found is not None
    assert found.canaries > 5 * found.controls


def test_too_few_devices_have_no_spread() -> None:
    one = np.zeros(1, dtype=np.int64)
    assert spread(np.array([0.1]), one, np.array([0.0]), one) is None


def test_counts_like_poisson_are_kept_whole() -> None:
    counts = GENERATOR.poisson(4.0, size=2000).astype(np.float64)
    assert design_effect(counts, np.full(2000, 1000.0)) == pytest.approx(1.0, abs=0.15)


def test_the_bounds_of_a_difference_hold_it_as_often_as_they_say() -> None:
    held, tries = 0, 400
    for _ in range(tries):
        ours = Share(events=float(GENERATOR.binomial(300, 0.05)), trials=300.0)
        theirs = Share(events=float(GENERATOR.binomial(1200, 0.03)), trials=1200.0)
        low, high = difference_bounds(ours, theirs, 0.025)
        held += low <= 0.02 <= high
    assert held / tries >= 0.94
