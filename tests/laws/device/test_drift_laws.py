from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.manifest import DriftReference, PageHinkley
from edgewise.device.drift.rule import ScoreWatch

REFERENCE = DriftReference(
    score="margin",
    edges=(0.2, 0.5, 0.8),
    shares=(0.1, 0.2, 0.3, 0.4),
    window=10,
    psi_cutoff=0.3,
    ks_cutoff=0.2,
    page_hinkley=PageHinkley(mean=0.6, allowance=0.1, rate_up=3.0, rate_down=2.0),
)
VALUES = st.lists(st.floats(-1, 2), max_size=200)


@given(VALUES, st.lists(st.integers(0, 200), max_size=6))
def test_how_values_are_batched_changes_nothing(values: list[float], cuts: list[int]) -> None:
    whole, parts = (ScoreWatch(REFERENCE, inputs=1000, chance=0.5) for _ in range(2))
    expected = whole.observe(np.array(values))
    found = []
    for part in np.split(np.array(values), sorted(cuts)):
        found += parts.observe(part)
    key = [(each.test, each.first, each.last) for each in sorted(expected, key=lambda each: each.test)]
    assert [(each.test, each.first, each.last) for each in sorted(found, key=lambda each: each.test)] == key
    assert parts.sketch() == whole.sketch()
