"""Range methods against brute force, closed forms and onnxruntime's calibrator."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.contracts.recipe import RangeMethod
from edgewise.errors import DataError
from edgewise.numerics.grid import activation_grid, fake_quantize
from edgewise.numerics.histogram import Histogram
from edgewise.numerics.range_mse import grid_error
from edgewise.numerics.ranges import choose, entropy, min_max, mse, octav, percentile, relative_noise


def _histogram(x: NDArray[np.floating]) -> Histogram:
    h = Histogram()
    h.update(x)
    return h


def _error(x: NDArray[np.float32], low: float, high: float, *, bits: int = 8, symmetric: bool = False) -> float:
    grid = activation_grid(low, high, bits=bits, symmetric=symmetric)
    return float(np.sum((x.astype(np.float64) - fake_quantize(x, grid)) ** 2))


_RNG = np.random.default_rng(0)
_NORMAL = _RNG.normal(size=200_000).astype(np.float32)
DATA = {
    "normal": _NORMAL,
    "relu": np.maximum(_NORMAL, 0),
    "silu": (_NORMAL / (1 + np.exp(-3 * _NORMAL))).astype(np.float32),
    "outliers": np.append(_RNG.laplace(size=100_000), [60.0, -40.0]).astype(np.float32),
    "negative": -np.abs(_NORMAL),
    "far from zero": (_NORMAL * 0.1 + 5).astype(np.float32),
}


def test_min_max_contains_zero() -> None:
    assert min_max(_histogram(np.array([2.0, 5.0]))) == (0.0, 5.0)
    assert min_max(_histogram(np.array([-5.0, -2.0]))) == (-5.0, 0.0)


@pytest.mark.parametrize("p", [90.0, 99.0, 99.9])
@pytest.mark.parametrize("name", ["normal", "outliers"])
def test_percentile_is_numpys(name: str, p: float) -> None:
    h = _histogram(DATA[name])
    expected = np.percentile(DATA[name], ((100 - p) / 2, (100 + p) / 2))
    np.testing.assert_allclose(percentile(h, p), expected, atol=1.5 * h.width)


def test_percentile_of_everything_is_min_max() -> None:
    for x in DATA.values():
        assert percentile(_histogram(x), 100.0) == min_max(_histogram(x))
    with pytest.raises(ValueError, match="percentile"):
        percentile(_histogram(_NORMAL), 0.0)


def test_percentile_of_a_few_values_leaves_the_lone_outlier_out() -> None:
    x = np.append(np.linspace(0, 1, 99_999), 1000.0).astype(np.float32)
    assert percentile(_histogram(x), 99.99)[1] < 1.5
    assert percentile(_histogram(x), 99.999)[1] > 900.0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", DATA)
def test_grid_error_is_the_error_of_the_data(name: str, bits: int, symmetric: bool) -> None:  # noqa: FBT001
    x, h = DATA[name], _histogram(DATA[name])
    low, high = min_max(h)
    limit = max(-low, high)
    lows, highs = (np.array([-limit]), np.array([limit])) if symmetric else (np.array([low]), np.array([high]))
    for factor in (1.0, 0.71, 0.4):
        model = grid_error(
            h.inexact_counts, h.first, h.width, lows * factor, highs * factor, bits=bits, symmetric=symmetric
        )
        actual = _error(x, float(lows[0] * factor), float(highs[0] * factor), bits=bits, symmetric=symmetric)
        # Bins as wide as a quarter of a step describe the data to a few percent.
        assert model[0] == pytest.approx(actual, rel=0.05)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", DATA)
def test_mse_is_close_to_the_best_of_a_brute_force_search(name: str, bits: int, symmetric: bool) -> None:  # noqa: FBT001
    x = DATA[name][-50_000:]
    h = _histogram(x)
    found = _error(x, *mse(h, bits=bits, symmetric=symmetric), bits=bits, symmetric=symmetric)
    low, high = min_max(h)
    factors = np.geomspace(0.05, 1, 25)
    if symmetric:
        limit = max(-low, high)
        pairs = [(-limit * f, limit * f) for f in np.geomspace(0.02, 1, 100)]
    else:
        pairs = [(low * f, high * g) for f in (factors if low else [1.0]) for g in (factors if high else [1.0])]
    best = min(_error(x, *pair, bits=bits, symmetric=symmetric) for pair in pairs)
    assert found <= 1.03 * best
    assert found <= _error(x, *min_max(h), bits=bits, symmetric=symmetric) * 1.001


def test_mse_searches_both_ends_apart() -> None:
    # A long tail above and a hard floor below, as of a SiLU with an outlier.
    x = np.append(DATA["silu"], np.float32(50.0))
    low, high = mse(_histogram(x))
    assert high < 45.0
    assert float(x.min()) <= low < 0.8 * float(x.min())


def test_octav_has_the_optimum_of_a_gaussian() -> None:
    # Banner et al., arXiv 1810.05723: for N(0, 1) and 4 bits the best clip is near 2.55; exact: where
    # the derivative of c^2 4^-B / 3 + 2 int_c (x - c)^2 phi vanishes.
    for bits, expected in ((4, 2.5591), (8, 3.9237)):
        low, high = octav(_histogram(_NORMAL), bits=bits, symmetric=True)
        assert high == pytest.approx(expected, rel=0.02)
        assert low == -high
        both = octav(_histogram(_NORMAL), bits=bits)
        assert both == pytest.approx((-expected, expected), rel=0.03)


def test_octav_of_one_sided_data_is_the_unsigned_equation() -> None:
    x = DATA["relu"].astype(np.float64)
    low, high = octav(_histogram(x), bits=4)
    beyond, inside = x[x > high], np.count_nonzero((x > 0) & (x <= high))
    assert low == 0.0
    assert high == pytest.approx(beyond.sum() / (4.0**-4 / 12 * inside + beyond.size), rel=1e-3)


def test_octav_clips_an_outlier() -> None:
    low, high = octav(_histogram(DATA["outliers"]), bits=4)
    assert -8.0 < low < 0.0 < high < 8.0


def test_entropy_keeps_the_bulk_and_drops_the_far_outliers() -> None:
    low, high = entropy(_histogram(DATA["outliers"]))
    assert 5.0 < high < 20.0
    assert low == -high


def test_entropy_agrees_with_onnxruntime_on_a_long_tail() -> None:
    from onnxruntime.quantization.calibrate import HistogramCollector  # noqa: PLC0415  slow to import

    x = DATA["outliers"]
    theirs = HistogramCollector(
        method="entropy", symmetric=True, num_bins=4096, num_quantized_bins=256, percentile=99.99, scenario="same"
    )
    counts, edges = np.histogram(x, bins=4095, range=(-60, 60))
    expected = theirs.get_entropy_threshold((counts, edges.astype(np.float32), x.min(), x.max()), 256)
    # The divergence is nearly flat around its minimum, and theirs merges bins in whole numbers only.
    assert entropy(_histogram(x))[1] == pytest.approx(float(expected[1]), rel=0.35)


def test_entropy_gives_one_side_all_the_levels() -> None:
    x = np.abs(DATA["outliers"])
    one = entropy(_histogram(x), bits=8)
    mirrored = Histogram(bins=8192)  # twice the bins for twice the range: the same width
    mirrored.update(np.concatenate((x, -x)))
    both = entropy(mirrored, bits=9)
    assert one[1] == both[1] == -both[0]
    assert entropy(_histogram(x), bits=8, symmetric=True) == entropy(_histogram(x), bits=7)
    assert entropy(_histogram(x), bits=7) != one


def test_entropy_keeps_everything_where_there_are_levels_enough() -> None:
    for x in DATA.values():
        assert entropy(_histogram(x), bits=16) == min_max(_histogram(x))


@pytest.mark.parametrize("method", RangeMethod)
def test_no_values_no_range(method: RangeMethod) -> None:
    with pytest.raises(DataError, match="without calibration values"):
        choose(Histogram(), method)


@pytest.mark.parametrize("method", RangeMethod)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_constants(method: RangeMethod, value: float) -> None:
    h = _histogram(np.full(100, value))
    low, high = choose(h, method)
    assert (low, high) == pytest.approx((min(value, 0.0), max(value, 0.0)), rel=0.02)
    assert choose(h, method, symmetric=True) == pytest.approx((-abs(value), abs(value)), rel=0.02)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_relative_noise_is_that_of_the_data(share: float) -> None:
    x = _NORMAL
    low, high = share * float(x.min()), share * float(x.max())
    expected = _error(x, low, high) / float(np.sum(x.astype(np.float64) ** 2))
    assert relative_noise(_histogram(x), low, high) == pytest.approx(expected, rel=0.02)


def test_nothing_but_zeros_has_no_noise() -> None:
    assert relative_noise(_histogram(np.zeros(4, np.float32)), 0.0, 1.0) == 0.0
