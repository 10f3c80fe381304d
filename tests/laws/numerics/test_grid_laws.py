"""What holds for every grid."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.numerics.grid import activation_grid, dequantize, fake_quantize, quantize, weight_grid

FLOATS = st.floats(-1e6, 1e6, width=32)
SHAPES = {"bits": st.sampled_from([4, 8, 16]), "signed": st.booleans(), "symmetric": st.booleans()}


@given(ends=st.tuples(FLOATS, FLOATS), shares=st.lists(st.floats(0, 1), max_size=20), **SHAPES)
def test_round_trip_is_within_half_a_step_inside_the_range(
    ends: tuple[float, float],
    shares: list[float],
    bits: int,
    signed: bool,  # noqa: FBT001
    symmetric: bool,  # noqa: FBT001
) -> None:
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    grid = activation_grid(low, high, bits=bits, signed=signed, symmetric=symmetric)
    x = np.array([low, high, *(low + share * (high - low) for share in shares)], np.float32)
    error = np.abs(x.astype(np.float64) - fake_quantize(x, grid))
    # 2^-22 of the largest value is for float32 arithmetic, which matters with 16 bits.
    assert error.max() <= float(grid.scale) / 2 + 2.0**-22 * np.abs(x).max() if high - low > 1e-30 else True


@given(ends=st.tuples(FLOATS, FLOATS), **SHAPES)
def test_zero_is_exact(ends: tuple[float, float], bits: int, signed: bool, symmetric: bool) -> None:  # noqa: FBT001
    grid = activation_grid(min(ends), max(ends), bits=bits, signed=signed, symmetric=symmetric)
    assert grid.qmin <= int(grid.zero_point) <= grid.qmax
    assert float(fake_quantize(np.float32(0.0), grid)) == 0.0
    assert float(dequantize(quantize(np.float32(0.0), grid), grid)) == 0.0


@given(ends=st.tuples(FLOATS, FLOATS), x=hnp.arrays(np.float32, 12, elements=FLOATS), **SHAPES)
def test_the_short_way_is_the_long_way(
    ends: tuple[float, float],
    x: np.ndarray[tuple[int], np.dtype[np.float32]],
    bits: int,
    signed: bool,  # noqa: FBT001
    symmetric: bool,  # noqa: FBT001
) -> None:
    grid = activation_grid(min(ends), max(ends), bits=bits, signed=signed, symmetric=symmetric)
    q = quantize(x, grid)
    np.testing.assert_array_equal(fake_quantize(x, grid), dequantize(q, grid))
    np.testing.assert_array_equal(quantize(dequantize(q, grid), grid), q)  # a grid point stays where it is
    assert np.all(np.diff(q[np.argsort(x)].astype(int)) >= 0)  # order is kept


@given(w=hnp.arrays(np.float32, (3, 5), elements=FLOATS), bits=st.sampled_from([4, 8, 16]))
def test_weights_are_within_half_a_step_and_never_at_the_lowest_level(
    w: np.ndarray[tuple[int, int], np.dtype[np.float32]], bits: int
) -> None:
    grid = weight_grid(np.abs(w).max(axis=1), axis=0, bits=bits)
    q = quantize(w, grid)
    assert np.abs(q.astype(int)).max() <= 2 ** (bits - 1) - 1
    error = np.abs(w - dequantize(q, grid))
    assert np.all(error <= grid.scale[:, None] * 0.5 + 2.0**-22 * np.abs(w))
    np.testing.assert_array_equal(quantize(-w, grid), -q)
