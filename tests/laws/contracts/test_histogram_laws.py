from __future__ import annotations

import math
import sys
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from edgewise.contracts.histogram import (
    FINEST_SCALE,
    LARGEST_VALUE,
    MOST_BUCKETS,
    Histogram,
    bucket_index,
    decode,
    encode,
    histogram_of,
    lower_edge,
    merge,
    merged,
    quantile,
)

TIMES = st.floats(0.01, 1e4)
ANY = st.floats(-LARGEST_VALUE, LARGEST_VALUE)
VALUES = st.lists(TIMES | ANY | st.sampled_from([0.0, -0.0, 1.0, 2.0, 5e-324, sys.float_info.min]), max_size=40)
MANTISSAS = st.floats(1.0, 2.0, exclude_max=True)


def is_above(value: float, index: int, scale: int) -> bool:
    """Return value > 2**(index / 2**scale), in whole numbers."""
    if scale <= 0:
        return Fraction(value) > Fraction(2) ** (index << -scale)
    return Fraction(value) ** (1 << scale) > Fraction(2) ** index


@given(value=MANTISSAS, exponent=st.integers(-1022, 52), scale=st.integers(-10, 7))
def test_a_bucket_holds_its_value_in_exact_arithmetic(value: float, exponent: int, scale: int) -> None:
    value = math.ldexp(value, exponent)
    index = bucket_index(value, scale)
    assert is_above(value, index, scale)
    assert not is_above(value, index + 1, scale)


@given(place=st.integers(0, 2**8 - 1), exponent=st.integers(-30, 30), steps=st.integers(-2, 2))
def test_a_bucket_holds_the_doubles_next_to_its_edge(place: int, exponent: int, steps: int) -> None:
    value = lower_edge((exponent << 8) + place, 8)
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    index = bucket_index(value, 8)
    assert is_above(value, index, 8)
    assert not is_above(value, index + 1, 8)


@given(place=st.integers(0, 2**20 - 1), steps=st.integers(-3, 3), scale=st.integers(0, 20))
def test_a_coarser_bucket_is_the_finer_one_shifted(place: int, steps: int, scale: int) -> None:
    value = max(lower_edge(place, 20) + steps * 2.0**-52, 1.0)
    assert bucket_index(value, 20) >> (20 - scale) == bucket_index(value, scale)


@given(value=st.floats(5e-324, LARGEST_VALUE), scale=st.integers(-10, 20))
@example(value=1.0, scale=20)
@example(value=4.0, scale=3)
@example(value=5e-324, scale=5)
def test_a_bucket_is_that_of_opentelemetry(value: float, scale: int) -> None:
    reference = LogarithmMapping(scale) if scale > 0 else ExponentMapping(scale)
    theirs, ours = reference.map_to_index(value), bucket_index(value, scale)
    # Theirs is a rounded logarithm, which its specification allows: it may err by one within rounding of an edge.
    edge = lower_edge(max(theirs, ours), scale)
    assert theirs == ours or (abs(theirs - ours) == 1 and abs(value - edge) <= 2**-40 * edge)


@given(values=VALUES, cuts=st.lists(st.integers(0, 40), max_size=4), order=st.randoms(use_true_random=False))
def test_parts_in_any_order_merge_to_the_whole(values: list[float], cuts: list[int], order: object) -> None:
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    shuffled = values[:]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [histogram_of(shuffled[low:high]) for low, high in pairwise(edges)]
    assert encode(merged(parts)) == encode(histogram_of(values))  # bytes: -0.0 and 0.0 are equal as numbers


@given(a=VALUES, b=VALUES, c=VALUES)
def test_histograms_are_a_commutative_monoid(a: list[float], b: list[float], c: list[float]) -> None:
    first, second, third = histogram_of(a), histogram_of(b), histogram_of(c)
    assert merge(first, second) == merge(second, first)
    assert merge(merge(first, second), third) == merge(first, merge(second, third))
    assert merge(first, Histogram()) == first


@given(values=VALUES)
def test_the_scale_is_the_finest_that_fits(values: list[float]) -> None:
    histogram = histogram_of(values)
    for side in (histogram.positive, histogram.negative):
        assert len(side.counts) <= MOST_BUCKETS
    if histogram.scale < FINEST_SCALE:
        finer = histogram.scale + 1
        spans = []
        for sign in (1, -1):
            places = [bucket_index(abs(value), finer) for value in values if value * sign > 0]
            spans.append(max(places) - min(places) + 1 if places else 0)
        assert max(spans) > MOST_BUCKETS


@given(values=VALUES.filter(bool))
def test_sum_and_extremes_are_those_of_the_values(values: list[float]) -> None:
    histogram = histogram_of(values)
    exact = sum((Fraction(round(Fraction(value) * 10**9), 10**9) for value in values), Fraction(0))
    assert Fraction(histogram.sum_units) + Fraction(histogram.sum_nanos, 10**9) == exact
    assert (histogram.minimum, histogram.maximum, histogram.count) == (min(values), max(values), len(values))
    assert histogram.total == float(exact)


@given(values=VALUES.filter(bool), q=st.floats(0, 1))
def test_a_quantile_lies_within_its_bounds(values: list[float], q: float) -> None:
    exact = sorted(values)[max(math.ceil(Fraction(q) * len(values)), 1) - 1]
    found = quantile(histogram_of(values), q)
    assert found.low <= exact <= found.high or abs(exact) <= sys.float_info.min
    assert found.low <= found.value <= found.high


@given(values=st.lists(st.floats(1.0, 100.0), min_size=1, max_size=60), q=st.floats(0, 1))
def test_two_decades_are_told_apart_to_five_per_cent(values: list[float], q: float) -> None:
    found = quantile(histogram_of(values), q)
    assert found.high <= found.low * 2 ** (1 / 2**4) * (1 + 1e-12)


@settings(max_examples=30)
@given(values=VALUES)
def test_a_histogram_is_given_back(values: list[float]) -> None:
    histogram = histogram_of(values)
    assert decode(encode(histogram)) == histogram
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(histogram), type=Histogram) == histogram


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**54])
def test_what_has_no_place_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        histogram_of([1.0, value])


def test_zero_thresholds_that_differ_are_not_merged() -> None:
    with pytest.raises(ValueError, match="zero thresholds"):
        merge(histogram_of([1.0], zero_threshold=0.5), histogram_of([1.0]))


@pytest.mark.parametrize(
    "change",
    [
        {"zero_count": -1},
        {"scale": 21},
        {"minimum": None},
        {"minimum": 5.0},
        {"sum_units": 100},
        {"sum_nanos": 10**9},
        {"positive": {"offset": 0, "counts": [1] * 161}},
        {"positive": {"offset": 0, "counts": [0, 1]}},
        {"positive": {"offset": 2**40, "counts": [3]}},
        {"unknown": 1},
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    document = msgspec.json.decode(encode(histogram_of([1.0, 2.0, 3.0])))
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode({**document, **change}))
