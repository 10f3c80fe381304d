"""The histogram against numpy's own, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgewise.errors import DataError
from edgewise.numerics.histogram import ChannelStats, Histogram


def test_counts_are_numpys() -> None:
    x = np.random.default_rng(0).normal(3, 2, 100_001).astype(np.float32)
    h = Histogram()
    h.update(x[:21].reshape(7, 3))
    h.update(x[21:])
    expected, _ = np.histogram(x.astype(np.float64), bins=h.edges)
    np.testing.assert_array_equal(h.counts, expected)
    assert (h.count, h.low, h.high) == (x.size, x.min(), x.max())
    assert h.mean == pytest.approx(x.mean(dtype=np.float64), rel=1e-5)
    assert h.variance == pytest.approx(x.var(dtype=np.float64), rel=1e-5)


def test_half_of_the_bins_at_least_are_used() -> None:
    for high in (1.0, 1.001, 1.5, 1.999, 1e-20, 1e30):
        h = Histogram(bins=256)
        h.update([high])
        assert 128 <= h.counts.size <= 256
        assert math.log2(h.width) % 1 == 0


def test_the_narrowest_width_that_fits_is_taken() -> None:
    # [-1.9, 2.05] is shorter than 4 but touches five bins of width 1.
    h = Histogram(bins=4)
    h.update([-1.9, 2.05])
    assert h.edges.tolist() == [-2.0, 0.0, 2.0, 4.0]
    assert h.counts.tolist() == [1, 0, 1]


def test_zero_is_an_edge_and_exact_zeros_are_known() -> None:
    h = Histogram()
    h.update([-1.0, -1e-9, 0.0, -0.0, 1e-9, 1.0])
    assert 0.0 in h.edges
    assert h.edges[-h.first] == 0.0
    assert h.zeros == 2
    assert h.inexact_counts.sum() == 4
    assert h.magnitudes.sum() == 4
    assert h.magnitudes[0] == 2


def test_magnitudes_fold_the_negative_side() -> None:
    h = Histogram(bins=8)
    h.update([-3.5, -2.5, -2.5, 0.5, 2.5])
    assert h.width == 1.0
    assert h.magnitudes.tolist() == [1, 0, 3, 1]


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-30])
def test_constant_data(value: float) -> None:
    h = Histogram()
    h.update(np.full(10, value, np.float32))
    h.update(np.full(10, value, np.float32))
    assert h.counts.sum() == h.count == 20
    assert h.low == h.high == np.float32(value)
    # The bin of the value: |x| of 5 lies above 4.99.
    k = int(np.flatnonzero(h.counts)[0])
    assert h.edges[k] <= np.float32(value) < h.edges[k + 1]


def test_growth_from_zeros_keeps_them() -> None:
    h = Histogram()
    h.update(np.zeros(7))
    h.update([1000.0])
    h.update([-1e-20])
    assert h.counts.sum() == 9
    assert h.counts[-h.first] == 7
    assert h.counts[-h.first - 1] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_and_nothing_is_counted(bad: float) -> None:
    h = Histogram()
    h.update([1.0])
    with pytest.raises(DataError, match="not finite"):
        h.update(np.array([0.5, bad]))
    with pytest.raises(DataError, match="not finite"):
        h.update([0.5], extremes=(bad, bad))
    assert (h.count, h.counts.sum(), h.high) == (1, 1, 1.0)


def test_extremes_of_a_sampled_array() -> None:
    x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    h = Histogram()
    h.update(x[::7], extremes=(float(x.min()), float(x.max())))
    assert (h.low, h.high) == (x.min(), x.max())
    assert h.counts.sum() == len(x[::7])


def test_large_values_do_not_overflow_the_sum_of_squares() -> None:
    h = Histogram()
    h.update([1e30, -1e30])
    assert h.squares == pytest.approx(2e60)


def test_empty() -> None:
    h = Histogram()
    h.update([])
    assert (h.count, h.low, h.high) == (0, math.inf, -math.inf)
    assert math.isnan(h.mean)
    assert math.isnan(h.variance)
    with pytest.raises(ValueError, match="power of two"):
        Histogram(bins=1000)
    with pytest.raises(ValueError, match="bins"):
        h.merge(Histogram(bins=16))


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 7, 3, 4), 1), ((40, 6), -1), ((3, 1500, 5), 2), ((6,), 0), ((4, 3), 0)]
)
def test_channels(shape: tuple[int, ...], axis: int) -> None:
    parts = [np.random.default_rng(k).normal(1, 2, shape).astype(np.float32) for k in range(3)]
    stats = ChannelStats(axis=axis)
    for part in parts:
        stats.update(part)
    columns = np.concatenate([np.moveaxis(p, axis, 0).reshape(shape[axis], -1) for p in parts], axis=1).astype(
        np.float64
    )
    np.testing.assert_array_equal(stats.low, columns.min(axis=1))
    np.testing.assert_array_equal(stats.high, columns.max(axis=1))
    np.testing.assert_array_equal(stats.max_abs, np.abs(columns).max(axis=1))
    np.testing.assert_allclose(stats.mean, columns.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats.mean_square, (columns**2).mean(axis=1), rtol=1e-5)
    assert stats.count == columns.shape[1]


def test_channels_merge_and_refuse() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    one, two = ChannelStats(axis=1), ChannelStats(axis=1)
    one.update(x[:1])
    two.update(x[1:])
    one.update(np.empty((0, 3, 4)))
    both = ChannelStats(axis=1)
    both.update(x)
    merged = one.merge(two)
    np.testing.assert_allclose(merged.mean, both.mean, rtol=1e-6)
    np.testing.assert_array_equal(merged.max_abs, both.max_abs)
    with pytest.raises(DataError, match="channels"):
        one.update(np.zeros((1, 4, 4)))
    with pytest.raises(DataError, match="finite"):
        one.update(np.full((1, 3, 4), np.nan))
