"""The test of rates says no more than assigning devices at random does, whatever devices are like."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.numerics.device_assignments import BLOCK, p_assigned, scores

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MARGIN = st.sampled_from((0.0, 0.001, 0.005, 0.1, 1.0))
SEED = st.integers(0, 2**32 - 1)


def rows(seed: int, size: int, *, same: bool) -> tuple[Floats, Floats]:
    """Return events and trials of devices that differ much, some without an event, some with one each time."""
    draw = np.random.default_rng(seed)
    trials = np.full(size, 500.0) if same else np.rint(10 ** draw.uniform(0, 4, size))
    rates = np.minimum(draw.choice((0.0, 0.001, 0.02, 1.0), size) * draw.gamma(0.5, 2, size), 1.0)
    return draw.binomial(trials.astype(np.int64), rates).astype(np.float64), trials


def chosen(size: int, devices: tuple[int, ...]) -> Bools:
    return np.isin(np.arange(size), devices)


@settings(max_examples=60, deadline=None)
@given(seed=SEED, size=st.integers(2, 8), canaries=st.integers(1, 7), margin=MARGIN, same=st.booleans())
def test_of_all_assignments_no_more_have_a_small_p_than_it_says(
    *, seed: int, size: int, canaries: int, margin: float, same: bool
) -> None:
    assume(canaries < size)
    events, trials = rows(seed, size, same=same)
    of = np.zeros(size, dtype=np.int64)
    drawn = [chosen(size, each) for each in itertools.combinations(range(size), canaries)]
    found = np.array([p_assigned(events, trials, each, of, margin) for each in drawn])
    sums = np.array([scores(events, trials, margin, 64)[each].sum() for each in drawn])
    np.testing.assert_allclose(found, [(sums >= each).mean() for each in sums], rtol=1e-12)
    for p in found:
        assert (found <= p).mean() <= p * (1 + 1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEED, margin=MARGIN)
def test_classes_are_assigned_each_for_itself(seed: int, margin: float) -> None:
    events, trials = rows(seed, 9, same=False)
    of = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])  # the last has no control, and proves nothing
    drawn = [
        chosen(9, (*one, *(4 + each for each in other), 8))
        for one in itertools.combinations(range(4), 2)
        for other in itertools.combinations(range(4), 1)
    ]
    found = np.array([p_assigned(events, trials, each, of, margin) for each in drawn])
    for p in found:
        assert (found <= p).mean() <= p * (1 + 1e-12)
    assert found.min() >= 1 / len(drawn) * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEED, size=st.integers(2, 3 * BLOCK), more=st.integers(1, 400), margin=MARGIN)
def test_more_events_of_a_canary_never_raise_it(seed: int, size: int, more: int, margin: float) -> None:
    events, trials = rows(seed, size, same=True)
    draw = np.random.default_rng(seed)
    canary = draw.random(size) < 0.3
    canary[:2] = True, False
    of = draw.integers(2, size=size)
    worse = events.copy()
    one = draw.choice(np.nonzero(canary)[0])
    worse[one] = min(worse[one] + more, trials[one])
    before = p_assigned(events, trials, canary, of, margin)
    assert p_assigned(worse, trials, canary, of, margin) <= before * (1 + 1e-9)
    assert p_assigned(events, trials, canary, of, margin) == before


@pytest.mark.parametrize("worked", [1.0, 0.2, 3.0], ids=["as controls", "less", "more"])
def test_in_blocks_it_is_right_as_often_as_it_says_however_much_canaries_had_to_do(worked: float) -> None:
    """Of 300 harmless rollouts at most as many have p <= 0.05 as chance allows (1 in 10,000 has more than 30)."""
    draw, size, below = np.random.default_rng(4), 3 * BLOCK, 0
    of = np.zeros(size, dtype=np.int64)
    for _ in range(300):
        canary = draw.random(size) < 0.2
        trials = np.rint(300 * draw.lognormal(0, 0.3, size) * np.where(canary, worked, 1.0))
        rates = np.minimum(0.002 * draw.gamma(1.0, 1.0, size), 1.0)
        events = draw.binomial(trials.astype(np.int64), rates).astype(np.float64)
        below += p_assigned(events, trials, canary, of, 0.005) <= 0.05
    assert below <= 30
