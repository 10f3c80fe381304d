"""What every range method promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.contracts.recipe import RangeMethod
from edgewise.numerics.grid import activation_grid
from edgewise.numerics.histogram import Histogram
from edgewise.numerics.range_mse import grid_error
from edgewise.numerics.ranges import choose, min_max, mse, percentile
from edgewise.numerics.weight_ranges import weight_mse

Array = np.ndarray[tuple[int], np.dtype[np.float32]]
VALUES = st.one_of(
    st.floats(-1e4, 1e4, width=32),
    st.floats(-1, 1, width=32),
    st.just(0.0),
)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=VALUES)


def _of(x: Array) -> Histogram:
    h = Histogram()
    h.update(x)
    return h


@pytest.mark.parametrize("method", RangeMethod)
@given(x=ARRAYS, bits=st.sampled_from([4, 8, 16]))
def test_a_range_holds_zero_and_stays_within_the_data(method: RangeMethod, x: Array, bits: int) -> None:
    low, high = choose(_of(x), method, bits=bits)
    assert min(float(x.min()), 0.0) <= low <= 0.0 <= high <= max(float(x.max()), 0.0)
    activation_grid(low, high, bits=bits)  # and makes a grid


@pytest.mark.parametrize("method", RangeMethod)
@given(x=ARRAYS, bits=st.sampled_from([4, 8, 16]))
def test_a_symmetric_range_is_symmetric(method: RangeMethod, x: Array, bits: int) -> None:
    low, high = choose(_of(x), method, bits=bits, symmetric=True)
    assert -low == high
    assert 0.0 <= high <= float(np.abs(x).max())


@pytest.mark.parametrize("method", RangeMethod)
@given(x=ARRAYS, exponent=st.integers(-8, 8))
def test_a_range_scales_with_the_data(method: RangeMethod, x: Array, exponent: int) -> None:
    x[np.abs(x) < 1e-6] = 0  # no subnormal steps
    one, other = choose(_of(x), method), choose(_of(x * np.float32(2.0**exponent)), method)
    np.testing.assert_allclose(other, np.array(one) * 2.0**exponent, rtol=1e-9)


@given(x=ARRAYS, p=st.floats(50, 100), q=st.floats(50, 100))
def test_a_higher_percentile_holds_the_lower(x: Array, p: float, q: float) -> None:
    inner, outer = percentile(_of(x), min(p, q)), percentile(_of(x), max(p, q))
    assert outer[0] <= inner[0]
    assert inner[1] <= outer[1]


@given(x=ARRAYS, bits=st.sampled_from([4, 8]), symmetric=st.booleans())
def test_mse_is_never_worse_than_min_max(x: Array, bits: int, symmetric: bool) -> None:  # noqa: FBT001
    h = _of(x)
    low, high = min_max(h)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    ours = mse(h, bits=bits, symmetric=symmetric)
    ends = np.array([[low, high], ours])
    errors = grid_error(h.inexact_counts, h.first, h.width, ends[:, 0], ends[:, 1], bits=bits, symmetric=symmetric)
    assert errors[1] <= errors[0] * (1 + 1e-9)


@given(w=hnp.arrays(np.float32, (4, 9), elements=st.floats(-100, 100, width=32)), bits=st.sampled_from([4, 8]))
def test_clips_of_weights_lie_between_half_and_all(
    w: np.ndarray[tuple[int, int], np.dtype[np.float32]], bits: int
) -> None:
    largest = np.abs(w).max(axis=1)
    found = weight_mse(w, bits)
    assert np.all(found <= largest)
    assert np.all(found >= largest * np.float32(0.5))
