from __future__ import annotations

import math

import pytest

from edgewise.device.drift.policy import DriftPolicy


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"chance": 0.0}, "chance"),
        ({"chance": 1.0}, "chance"),
        ({"horizon_inputs": 0.0}, "horizon"),
        ({"horizon_inputs": math.inf}, "horizon"),
        ({"every": 0}, "every"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DriftPolicy(**wrong)  # type: ignore[arg-type]
