"""GPTQ against the algorithm as printed, and its grids."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.errors import DataError
from edgewise.numerics.packing import block_grid
from edgewise.numerics.rounding import Order, gptq, nearest


def _layer(rows: int, cols: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights [rows, cols] and the Hessian [cols, cols] of correlated inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * cols, cols)) @ (np.eye(cols) + rng.normal(size=(cols, cols)) / 2)
    return rng.normal(size=(rows, cols)).astype(np.float32), (x.T @ x).astype(np.float32)


def _as_printed(
    w: NDArray[np.float32], hessian: NDArray[np.float32], scale: NDArray[np.float32], levels: int
) -> NDArray[np.int8]:
    """Algorithm 1 of arXiv 2210.17323 with B = 1: the Cholesky factor of the inverse, one column at a time."""
    h = hessian.astype(np.float64)
    h += 0.01 * np.mean(np.diagonal(h)) * np.eye(len(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left = w.astype(np.float64)
    q = np.zeros(w.shape, np.int8)
    for j in range(w.shape[1]):
        q[:, j] = np.clip(np.rint(left[:, j] / scale), -levels, levels)
        error = (left[:, j] - q[:, j] * scale) / upper[j, j]
        left[:, j:] -= np.outer(error, upper[j, j:])
    return q


def _loss(w: NDArray[np.float32], values: NDArray[np.floating], hessian: NDArray[np.float32]) -> float:
    d = w.astype(np.float64) - values
    return float(np.sum((d @ hessian) * d))


@pytest.mark.parametrize("block", [1, 7, 16, 128])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_gptq_is_the_printed_algorithm(block: int, bits: int) -> None:
    w, hessian = _layer(12, 40)
    levels = (1 << (bits - 1)) - 1
    scale = (np.abs(w).max(axis=1) / levels).astype(np.float32)
    ours = gptq(w, hessian, scale, bits=bits, block=block)
    # float32 sums may tip a value that lies on a tie.
    assert np.mean(ours != _as_printed(w, hessian, scale, levels)) < 0.01
    assert ours.dtype == np.int8


def test_order_by_activation_is_a_permutation_of_the_columns() -> None:
    w, hessian = _layer(8, 24)
    scale = np.abs(w).max(axis=1) / np.float32(7)
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    permuted = gptq(w[:, order], hessian[np.ix_(order, order)], scale, bits=4)
    np.testing.assert_array_equal(gptq(w, hessian, scale, bits=4, order=Order.ACTIVATION)[:, order], permuted)


def test_nearest_is_the_grid() -> None:
    w = np.array([[0.5, 1.5, 2.4, -9.0], [1.0, 2.0, 3.0, 400.0]], np.float32)
    assert nearest(w, np.array([1.0, 2.0], np.float32)).tolist() == [[0, 2, 2, -9], [0, 1, 2, 127]]
    assert nearest(w, np.array([1.0, 2.0], np.float32), bits=4)[1, 3] == 7


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("cols", [64, 72])
def test_groups_have_their_own_scale_and_zero_point(cols: int, asymmetric: bool) -> None:  # noqa: FBT001
    w, hessian = _layer(6, cols)
    scale, zero_point = block_grid(w, 4, 16, asymmetric=asymmetric)
    rounded = nearest(w, scale, bits=4, zero_point=zero_point, group=16)
    better = gptq(w, hessian, scale, bits=4, zero_point=zero_point, group=16, order=Order.ACTIVATION)

    def values(q: NDArray[np.uint8]) -> NDArray[np.floating]:
        column = np.arange(cols) // 16
        return (q.astype(np.float64) - zero_point[:, column]) * scale[:, column]

    assert rounded.dtype == better.dtype == np.uint8
    assert better.max() <= 15
    # Nearest: half a step, one where a symmetric block lacks the level above its largest positive value.
    assert np.all(np.abs(values(rounded) - w) <= np.abs(scale[:, np.arange(cols) // 16]) * 1.001)
    assert _loss(w, values(better), hessian) < 0.8 * _loss(w, values(rounded), hessian)


def test_without_a_hessian_it_is_nearest() -> None:
    w, _ = _layer(3, 5)
    scale = np.ones(3, np.float32)
    np.testing.assert_array_equal(gptq(w, np.zeros((5, 5)), scale), nearest(w, scale))
    np.testing.assert_array_equal(gptq(w, np.eye(5), scale), nearest(w, scale))


def test_a_dead_input_is_rounded_to_nearest_and_disturbs_nothing() -> None:
    w, hessian = _layer(5, 12)
    scale = np.abs(w).max(axis=1) / np.float32(7)
    hessian[3, :] = hessian[:, 3] = 0
    result = gptq(w, hessian, scale, bits=4)
    np.testing.assert_array_equal(result[:, 3], nearest(w, scale, bits=4)[:, 3])


def test_fewer_samples_than_inputs_are_enough() -> None:
    w, _ = _layer(5, 40)
    x = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    scale = np.abs(w).max(axis=1) / np.float32(7)
    better = gptq(w, x.T @ x, scale, bits=4)
    assert _loss(w, better * scale[:, None], x.T @ x) < _loss(w, nearest(w, scale, bits=4) * scale[:, None], x.T @ x)


def test_what_is_no_hessian_is_refused() -> None:
    w, hessian = _layer(3, 5)
    scale = np.ones(3, np.float32)
    with pytest.raises(DataError, match="semidefinite"):
        gptq(w, -hessian, scale)
    with pytest.raises(DataError, match="finite"):
        gptq(w, hessian * np.float32("nan"), scale)
    with pytest.raises(ValueError, match="groups of 2"):
        gptq(w, hessian, scale, group=2)
    with pytest.raises(ValueError, match="shape"):
        nearest(w, np.ones((3, 2), np.float32))
