"""Clips of weights against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.numerics.weight_ranges import weight_mse, weight_mse_weighted


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_best_of_forty_factors(bits: int, weighted: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(0)
    w = rng.standard_t(4, size=(300, 400)).astype(np.float32)
    importance = rng.uniform(0, 2, 400) if weighted else np.ones(400)
    found = weight_mse_weighted(w, importance.astype(np.float32), bits) if weighted else weight_mse(w, bits)
    levels = (1 << (bits - 1)) - 1

    def error(limit: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        step = limit[:, None] / levels
        return np.asarray(((w - np.clip(np.rint(w / step), -levels, levels) * step) ** 2 * importance).sum(axis=1))

    largest = np.abs(w).max(axis=1).astype(np.float64)
    best = np.min([error(largest * f) for f in np.linspace(0.5, 1, 40)], axis=0)
    np.testing.assert_allclose(error(found.astype(np.float64)), best, rtol=1e-3)
    assert (found <= largest).all()


def test_rows_of_zeros_and_rows_without_noise_are_kept() -> None:
    assert weight_mse(np.zeros((2, 3), np.float32)).tolist() == [0.0, 0.0]
    assert weight_mse(np.array([[127.0, 5.0, -3.0]], np.float32)).tolist() == [127.0]
    assert weight_mse_weighted(np.ones((1, 4), np.float32), np.zeros(4, np.float32)).tolist() == [1.0]
