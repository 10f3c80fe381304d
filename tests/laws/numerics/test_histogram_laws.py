"""Histograms are a commutative monoid, whatever the order and the cuts of the stream."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.numerics.histogram import Histogram

BINS = 64
# Down to 2^-30 and exact zeros: over wider spans float32 itself underflows when scaled.
VALUES = st.floats(-1e6, 1e6, width=32).map(lambda v: v if abs(v) > 2.0**-30 else 0.0)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 30), elements=VALUES)
Array = np.ndarray[tuple[int], np.dtype[np.float32]]


def _of(*parts: Array) -> Histogram:
    h = Histogram(bins=BINS)
    for part in parts:
        h.update(part)
    return h


def _same(a: Histogram, b: Histogram) -> None:
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_array_equal(a.edges, b.edges)
    assert (a.low, a.high, a.count, a.zeros) == (b.low, b.high, b.count, b.zeros)
    assert math.isclose(a.total, b.total, rel_tol=1e-5, abs_tol=1.0 + 1e-5 * math.sqrt(a.squares * a.count))
    assert math.isclose(a.squares, b.squares, rel_tol=1e-5)


@given(a=ARRAYS, b=ARRAYS)
def test_merge_commutes(a: Array, b: Array) -> None:
    _same(_of(a).merge(_of(b)), _of(b).merge(_of(a)))


@given(a=ARRAYS, b=ARRAYS, c=ARRAYS)
def test_merge_associates(a: Array, b: Array, c: Array) -> None:
    _same(_of(a).merge(_of(b)).merge(_of(c)), _of(a).merge(_of(b).merge(_of(c))))


@given(a=ARRAYS)
def test_the_empty_histogram_is_neutral(a: Array) -> None:
    _same(_of(a).merge(_of()), _of(a))
    _same(_of().merge(_of(a)), _of(a))


@given(a=ARRAYS, b=ARRAYS)
def test_merging_is_updating(a: Array, b: Array) -> None:
    before = _of(a).counts.sum()
    _same(_of(a).merge(_of(b)), _of(a, b))
    assert _of(a).counts.sum() == before


@given(a=ARRAYS, seed=st.integers(0, 9), cut=st.integers(0, 30))
def test_order_and_cuts_do_not_matter(a: Array, seed: int, cut: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(a)
    _same(_of(shuffled[:cut], shuffled[cut:]), _of(a))


@given(parts=st.lists(ARRAYS, max_size=5))
def test_growth_conserves_the_counts_and_puts_each_value_in_its_bin(parts: list[Array]) -> None:
    h = _of(*parts)
    x = np.concatenate([*parts, np.empty(0, np.float32)]).astype(np.float64)
    assert h.counts.sum() == h.count == x.size
    assert h.counts.size <= BINS
    index = np.searchsorted(h.edges, x, side="right") - 1
    np.testing.assert_array_equal(h.counts, np.bincount(index, minlength=h.counts.size))
    assert h.zeros == np.count_nonzero(x == 0)
    if x.size:
        assert (h.low, h.high) == (x.min(), x.max())


@given(a=ARRAYS)
def test_mirrored_data_have_the_same_magnitudes_up_to_the_edges(a: Array) -> None:
    # A value on an edge belongs to the bin above it, so its mirror may move by one bin.
    one, two = _of(a).magnitudes, _of(-a).magnitudes
    size = max(one.size, two.size)
    cumulated = [np.cumsum(np.pad(m, (0, size - m.size))) for m in (one, two)]
    assert one.sum() == two.sum() == np.count_nonzero(a)
    if _of(a).width == _of(-a).width:
        assert np.all(cumulated[0][1:] >= cumulated[1][:-1])
        assert np.all(cumulated[1][1:] >= cumulated[0][:-1])
