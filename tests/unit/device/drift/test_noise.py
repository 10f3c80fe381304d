from __future__ import annotations

import math
import random

import pytest

from edgewise.contracts.telemetry import Sketch
from edgewise.device.drift.noise import noised
from edgewise.device.drift.policy import DriftPolicy


def test_noise_is_around_the_count_and_as_wide_as_epsilon_says() -> None:
    draw = random.Random(0).random  # noqa: S311 - a test that gives the same each time
    sketch = Sketch(edges=(0.5,), counts=(1000, 1000))
    found = [
        count - 1000
        for _ in range(4000)
        for count in noised({"a": sketch, "b": sketch}, epsilon=1.0, uniform=draw)["a"].counts
    ]
    alpha = math.exp(-0.5)  # half of epsilon for each of two sketches
    variance = 2 * alpha / (1 - alpha) ** 2
    assert sum(found) / len(found) == pytest.approx(0, abs=0.15)
    assert sum(each * each for each in found) / len(found) == pytest.approx(variance, rel=0.1)


def test_small_counts_are_not_told_apart_from_none() -> None:
    draw = random.Random(1).random  # noqa: S311 - a test that gives the same each time
    empty = Sketch(edges=(0.5,), counts=(0, 0))
    assert any(any(noised({"a": empty}, epsilon=1.0, uniform=draw)["a"].counts) for _ in range(20))


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
