"""Laws of rounding, packing and counting edits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.numerics.packing import block_grid, pack_levels, pack_nbits, unpack_nbits
from edgewise.numerics.rounding import Order, gptq, nearest
from edgewise.numerics.statistics import auroc, edit_distance, ranks


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 6),
    cols=st.integers(1, 24),
    bits=st.sampled_from([4, 8]),
    order=st.sampled_from(Order),
    block=st.sampled_from([1, 5, 128]),
)
def test_gptq_does_no_worse_than_nearest_in_the_first_column_that_differs(
    seed: int, rows: int, cols: int, bits: int, order: Order, block: int
) -> None:
    """GPTQ is greedy: each column is the best for those before it, so a whole row may still lose (rarely)."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(rows, cols)).astype(np.float32)
    x = rng.normal(size=(3 * cols, cols)) * rng.uniform(0.1, 3, cols)
    x += x[:, :1]
    hessian = x.T @ x
    scale = (np.abs(w).max(axis=1) / ((1 << (bits - 1)) - 1)).astype(np.float32)
    better, plain = gptq(w, hessian, scale, bits=bits, order=order, block=block), nearest(w, scale, bits=bits)
    assert better.shape == w.shape
    assert np.abs(better.astype(int)).max() <= (1 << (bits - 1)) - 1
    first = int(np.argmax(np.diagonal(hessian))) if order is Order.ACTIVATION else 0
    np.testing.assert_array_equal(better[:, first], plain[:, first])


@given(seed=st.integers(0, 10_000), bits=st.sampled_from([3, 4]), order=st.sampled_from(Order))
def test_gptq_errs_less_than_nearest_over_a_layer(seed: int, bits: int, order: Order) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(32, 32)).astype(np.float32)
    x = rng.normal(size=(128, 32)) @ (np.eye(32) + rng.normal(size=(32, 32)) / 4)
    hessian = x.T @ x
    scale = (np.abs(w).max(axis=1) / ((1 << (bits - 1)) - 1)).astype(np.float32)

    def loss(q: np.ndarray[tuple[int, int], np.dtype[np.int8]]) -> float:
        d = w - q * scale[:, None].astype(np.float64)
        return float(np.sum((d @ hessian) * d))

    assert loss(gptq(w, hessian, scale, bits=bits, order=order)) <= loss(nearest(w, scale, bits=bits))


@given(data=st.data(), bits=st.sampled_from([4, 8]), block=st.sampled_from([16, 32]))
def test_packing_loses_nothing(data: st.DataObject, bits: int, block: int) -> None:
    rows, cols = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 70))
    blocks = -(-cols // block)
    levels = data.draw(hnp.arrays(np.uint8, (rows, cols), elements=st.integers(0, 2**bits - 1)))
    zeros = data.draw(hnp.arrays(np.uint8, (rows, blocks), elements=st.integers(0, 2**bits - 1)))
    packed = pack_levels(levels, np.ones((rows, blocks), np.float32), zeros, bits, block)
    values = unpack_nbits(*packed, k=cols, bits=bits, block=block)
    expected = levels.astype(int) - zeros[:, np.arange(cols) // block]
    np.testing.assert_array_equal(values.T, expected)


@given(
    w=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.floats(-100, 100, width=32)),
    bits=st.sampled_from([4, 8]),
    asymmetric=st.booleans(),
)
def test_packed_weights_are_near_and_packing_again_changes_nothing(
    w: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    bits: int,
    asymmetric: bool,  # noqa: FBT001
) -> None:
    w[np.abs(w) < 1e-20] = 0
    scale, _ = block_grid(w.T, bits, 16, asymmetric=asymmetric)
    step = np.abs(scale)[:, np.arange(len(w)) // 16].T
    values = unpack_nbits(*pack_nbits(w, bits, 16, asymmetric=asymmetric), k=len(w), bits=bits, block=16)
    # One whole step where a symmetric block has a second value as large, of the other sign.
    assert np.all(np.abs(values - w) <= step * (0.5 if asymmetric else 1.0) + 1e-4 * np.abs(w))
    assert np.all(values[w == 0] == 0)


def _by_table(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@given(a=st.text("abc", max_size=80), b=st.text("abc", max_size=80))
def test_edit_distance_is_that_of_the_table(a: str, b: str) -> None:
    assert edit_distance(a, b) == _by_table(a, b) == edit_distance(list(b), list(a))


@given(x=st.lists(st.integers(-5, 5), min_size=1), y=st.lists(st.integers(-5, 5), min_size=1))
def test_auroc_of_swapped_sides_and_sums_of_ranks(x: list[int], y: list[int]) -> None:
    assert auroc(x, y) + auroc(y, x) == 1.0 or abs(auroc(x, y) + auroc(y, x) - 1) < 1e-12
    assert ranks(x).sum() == len(x) * (len(x) + 1) / 2
