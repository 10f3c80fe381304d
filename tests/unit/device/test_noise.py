from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest

from edgewise.contracts.capture import noise_bias, noise_variance
from edgewise.device.noise import discrete_laplace, noised, scale_of


def test_every_value_has_its_probability() -> None:
    draw, scale, count = Random(1), 3, 40_000  # noqa: S311 - a test's own
    found = Counter(discrete_laplace(scale, draw.randrange) for _ in range(count))
    q = math.exp(-1 / scale)
    chi = 0.0
    for k in range(-12, 13):
        expected = count * (1 - q) / (1 + q) * q ** abs(k)
        chi += (found[k] - expected) ** 2 / expected
    assert chi < 50  # 25 values: 52.6 is the 0.999 quantile of chi-squared with 25 degrees


def test_the_bias_and_spread_of_clipped_noise_are_as_stated() -> None:
    draw, scale, count = Random(2), 5, 40_000  # noqa: S311 - a test's own
    found = np.array(noised([0] * count, scale, draw.randrange))
    assert found.mean() == pytest.approx(noise_bias(scale), rel=0.05)
    assert found.var() == pytest.approx(noise_variance(scale), rel=0.08)
    assert (noise_bias(0), noise_variance(0)) == (0, 0)


def test_noise_is_around_the_count_and_none_where_none_is_asked_for() -> None:
    draw = Random(0).randrange  # noqa: S311 - a test's own
    found = np.array(noised([1000] * 4000, 4, draw)) - 1000
    assert found.mean() == pytest.approx(0, abs=0.3)
    assert noised([3, 0], 0) == (3, 0)
    assert len(set(noised([1000] * 64, 4))) > 1  # by the system's own randomness


def test_the_scale_is_for_two_counts_in_each_sketch() -> None:
    assert [scale_of(epsilon, sketches=7) for epsilon in (1.0, 0.3, 100.0)] == [14, 47, 1]
