from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.contracts.manifest import DriftReference
from edgewise.device.drift.rule import DOWN, KS, PSI, UP, ScoreWatch
from edgewise.forge.seal.drift import reference_of

INPUTS, CHANCE = 1e5, 0.01


def good(count: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).beta(6, 2, count)


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    found = reference_of(good(1000, 0), seed=0)
    assert found is not None
    return found


def watch(reference: DriftReference) -> ScoreWatch:
    return ScoreWatch(reference, inputs=INPUTS, chance=CHANCE)


def test_good_values_raise_nothing(reference: DriftReference) -> None:
    assert watch(reference).observe(good(86_400, 1)) == []


def test_values_that_fall_raise_an_alarm_that_says_where(reference: DriftReference) -> None:
    mine = watch(reference)
    assert mine.observe(good(1000, 2)) == []
    alarms = mine.observe(good(1000, 3) - 0.1)
    first = min(alarms, key=lambda each: each.last)
    assert first.test == DOWN
    assert 950 < first.first <= 1020
    assert 1000 < first.last < 1300
    assert first.figure > first.cutoff
    assert f"inputs {first.first} to {first.last}" in first.reason
    assert {each.test for each in alarms} == {DOWN, PSI, KS}
    assert mine.observe(good(1000, 4) - 0.1) == []  # each test alarms once


def test_values_that_rise_are_told_apart(reference: DriftReference) -> None:
    alarms = watch(reference).observe(good(2000, 3) + 0.1)
    assert UP in {each.test for each in alarms}
    assert DOWN not in {each.test for each in alarms}


def test_a_form_that_changes_around_the_same_mean_is_seen_by_windows(reference: DriftReference) -> None:
    middle = float(good(100_000, 5).mean())
    other = np.random.default_rng(6).choice([middle - 0.15, middle + 0.15], 2000)
    alarms = watch(reference).observe(other)
    assert {PSI, KS} <= {each.test for each in alarms}
    psi = next(each for each in alarms if each.test == PSI)
    assert psi.last - psi.first + 1 == watch(reference).run * reference.window


def test_one_odd_window_is_no_alarm(reference: DriftReference) -> None:
    quiet = DriftReference(
        score="s",
        edges=reference.edges,
        shares=reference.shares,
        window=reference.window,
        psi_cutoff=reference.psi_cutoff,
        ks_cutoff=reference.ks_cutoff,
    )
    mine = watch(quiet)
    odd = np.full(reference.window * (mine.run - 1), 0.5)
    assert mine.observe(np.concatenate([odd, good(1000, 7), odd, good(1000, 9)])) == []
    assert {each.test for each in mine.observe(np.full(1000, 0.5))} == {PSI, KS}


def test_a_sketch_counts_every_value_once(reference: DriftReference) -> None:
    mine = watch(reference)
    for size in (0, 1, 99, 250):
        mine.observe(good(size, size))
    found = mine.sketch()
    assert found.edges == reference.edges
    assert sum(found.counts) == 350
    assert sum(mine.sketch().counts) == 0


def test_a_reference_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        DriftReference(score="s", edges=(0.5,), shares=(1.0,), window=100, psi_cutoff=0.1, ks_cutoff=0.1)
