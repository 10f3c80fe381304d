"""Mergeable base-2 exponential histograms with delta temporality, with OpenTelemetry's bucket rule.

OpenTelemetry metrics data model, section "ExponentialHistogram": at scale s the base is 2**(2**-s), and bucket
i holds the values v with base**i < v <= base**(i + 1). Values within `zero_threshold` of 0 are counted apart.
A histogram has at most `MOST_BUCKETS` buckets on either side; its scale is the finest that fits them.

Merging is exact and order does not matter: halving the resolution joins the buckets 2i and 2i + 1 and needs
nothing but an index shift, so scale and counts follow from the values alone, however they were cut into parts.
For the same reason the sum is kept as whole units and billionths (as `google.type.Money` does), not as a float:
each value is rounded once, to a billionth of its unit, when it is recorded, and integers add in any order.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec

from edgewise.contracts.base import Value

MOST_BUCKETS = 160
"""On either side of 0; the default of OpenTelemetry's SDKs."""
FINEST_SCALE = 20
COARSEST_SCALE = -10
LARGEST_VALUE = 2.0**53
"""Values beyond this are refused, so that the sum of 2**10 of them fits 64 bits."""
NANOS = 1_000_000_000

_MOST_COUNT = 2**63 - 1
# log2 of a double is right to 2^-52; times 2^20 that is far inside this distance of a whole number.
_NEAR = 2.0**-24
# Fractional bits of the exact logarithm: its error doubles with each of at most 20 squarings.
_BITS = 192


class Buckets(Value, kw_only=True):
    """Counts of consecutive buckets, the first with index `offset`; neither the first nor the last is 0."""

    offset: int = 0
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError unless the counts are a trimmed run of at most `MOST_BUCKETS`."""
        if len(self.counts) > MOST_BUCKETS:
            raise ValueError(f"{len(self.counts)} buckets, at most {MOST_BUCKETS} are kept")
        if any(not 0 <= count <= _MOST_COUNT for count in self.counts):
            raise ValueError("a count is negative or too large")
        if self.counts and not (self.counts[0] and self.counts[-1]):
            raise ValueError("the first and the last bucket must not be empty")
        if not self.counts and self.offset:
            raise ValueError("no buckets have the offset 0")

    @property
    def last(self) -> int:
        """Index of the last bucket."""
        return self.offset + len(self.counts) - 1


class Histogram(Value, kw_only=True):
    """Counts of a stream of values. `minimum` and `maximum` are None while there are no values.

    The sum is `sum_units + sum_nanos / 10**9` with 0 <= `sum_nanos` < 10**9.
    """

    scale: int = FINEST_SCALE
    zero_threshold: float = 0.0
    zero_count: int = 0
    positive: Buckets = Buckets()
    negative: Buckets = Buckets()
    sum_units: int = 0
    sum_nanos: int = 0
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where the fields contradict one another."""
        if not COARSEST_SCALE <= self.scale <= FINEST_SCALE:
            raise ValueError(f"scale {self.scale}, required from {COARSEST_SCALE} to {FINEST_SCALE}")
        if not 0 <= self.zero_threshold <= LARGEST_VALUE:
            raise ValueError(f"zero threshold {self.zero_threshold}")
        if not 0 <= self.zero_count <= _MOST_COUNT:
            raise ValueError(f"zero count {self.zero_count}")
        if not (0 <= self.sum_nanos < NANOS and abs(self.sum_units) <= _MOST_COUNT):
            raise ValueError("the sum is out of range")
        for side in (self.positive, self.negative):
            lowest, highest = bucket_index(sys.float_info.min, self.scale), bucket_index(LARGEST_VALUE, self.scale)
            if side.counts and not lowest <= side.offset <= side.last <= highest:
                raise ValueError(f"buckets {side.offset} to {side.last} are beyond any value at scale {self.scale}")
        self._check_extremes()

    def _check_extremes(self) -> None:
        if (self.minimum is None) is not (self.maximum is None) or (self.minimum is None) is not (self.count == 0):
            raise ValueError("minimum and maximum are there exactly where values are")
        if self.minimum is None or self.maximum is None:
            return
        if not -LARGEST_VALUE <= self.minimum <= self.maximum <= LARGEST_VALUE:
            raise ValueError(f"minimum {self.minimum} and maximum {self.maximum}")
        nanos = self.sum_units * NANOS + self.sum_nanos
        if not nanos_of(self.minimum) * self.count <= nanos <= nanos_of(self.maximum) * self.count:
            raise ValueError("the sum is not between count times minimum and count times maximum")

    @property
    def count(self) -> int:
        """How many values were counted."""
        return self.zero_count + sum(self.positive.counts) + sum(self.negative.counts)

    @property
    def total(self) -> float:
        """Sum of the values, rounded once from the exact sum."""
        return (self.sum_units * NANOS + self.sum_nanos) / NANOS

    @property
    def mean(self) -> float | None:
        """Mean of the values; None while there are none."""
        return (self.sum_units * NANOS + self.sum_nanos) / (NANOS * self.count) if self.count else None


class Estimate(Value, kw_only=True):
    """A quantile from buckets: the exact one lies within `low` and `high`."""

    value: float
    low: float
    high: float


def histogram_of(values: Iterable[float], *, zero_threshold: float = 0.0) -> Histogram:
    """Return the histogram of `values`. Raises ValueError where one is not finite or beyond `LARGEST_VALUE`.

    >>> histogram_of([1.0, 2.0, 3.0, 4.0]).mean
    2.5
    """
    positive: Counter[int] = Counter()
    negative: Counter[int] = Counter()
    zeros, nanos = 0, 0
    low, high = math.inf, -math.inf
    for each in values:
        value = float(each) + 0.0  # -0.0 becomes 0.0: which of them is the minimum would depend on their order
        if not abs(value) <= LARGEST_VALUE:
            raise ValueError(f"{value} is not a finite number of at most 2**53")
        low, high = min(low, value), max(high, value)
        nanos += nanos_of(value)
        if abs(value) <= zero_threshold:
            zeros += 1
        else:
            (positive if value > 0 else negative)[bucket_index(abs(value), FINEST_SCALE)] += 1
    return assembled(
        FINEST_SCALE,
        positive,
        negative,
        zero_count=zeros,
        zero_threshold=zero_threshold,
        nanos=nanos,
        extremes=(low, high) if low <= high else None,
    )


def merge(first: Histogram, second: Histogram) -> Histogram:
    """Return the histogram of the values of both, exactly.

    Raises ValueError where the zero thresholds differ: widening one would move counts by a rule that depends on order.
    """
    if first.zero_threshold != second.zero_threshold:
        raise ValueError(f"zero thresholds {first.zero_threshold} and {second.zero_threshold} cannot be merged exactly")
    scale = min(first.scale, second.scale)
    extremes = [each for each in (first, second) if each.minimum is not None]
    return assembled(
        scale,
        _indexed(first.positive, first.scale - scale) + _indexed(second.positive, second.scale - scale),
        _indexed(first.negative, first.scale - scale) + _indexed(second.negative, second.scale - scale),
        zero_count=first.zero_count + second.zero_count,
        zero_threshold=first.zero_threshold,
        nanos=sum(each.sum_units * NANOS + each.sum_nanos for each in (first, second)),
        extremes=(
            min(each.minimum for each in extremes if each.minimum is not None),
            max(each.maximum for each in extremes if each.maximum is not None),
        )
        if extremes
        else None,
    )


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return the histogram of the values of all; the empty one where there are none."""
    whole: Histogram | None = None
    for each in histograms:
        whole = each if whole is None else merge(whole, each)
    return Histogram() if whole is None else whole


def assembled(
    scale: int,
    positive: Mapping[int, int],
    negative: Mapping[int, int],
    *,
    zero_count: int,
    zero_threshold: float,
    nanos: int,
    extremes: tuple[float, float] | None,
) -> Histogram:
    """Return the histogram with these counts by bucket index at `scale`, on the finest scale that fits them."""
    shift = max(_shift(positive), _shift(negative))
    return Histogram(
        scale=scale - shift,
        zero_threshold=zero_threshold,
        zero_count=zero_count,
        positive=_trimmed(positive, shift),
        negative=_trimmed(negative, shift),
        sum_units=nanos // NANOS,
        sum_nanos=nanos % NANOS,
        minimum=extremes[0] if extremes else None,
        maximum=extremes[1] if extremes else None,
    )


def quantile(histogram: Histogram, q: float) -> Estimate:
    """Return the q-quantile, q in [0, 1]: the value of rank max(ceil(q * count), 1), with the bounds it lies in.

    Within its bucket a value's logarithm is taken as evenly spread over the ranks. Raises ValueError where there are
    no values, or `q` is not a share.
    """
    if histogram.minimum is None or histogram.maximum is None:
        raise ValueError("no values")
    if not 0 <= q <= 1:
        raise ValueError(f"q = {q}, required from 0 to 1")
    rank = max(math.ceil(Fraction(q) * histogram.count), 1)
    low, high, value = _at_rank(histogram, rank)
    low, high = (min(max(edge, histogram.minimum), histogram.maximum) for edge in (low, high))
    return Estimate(value=min(max(value, low), high), low=low, high=high)


def bucket_index(value: float, scale: int) -> int:
    """Return the index i with base**i < value <= base**(i + 1), base = 2**(2**-scale), exactly; value > 0.

    A subnormal value counts as the least normal one, as in OpenTelemetry's reference.

    >>> bucket_index(1.0, 3), bucket_index(1.0001, 3), bucket_index(2.0, 3)
    (-1, 0, 7)
    """
    mantissa, exponent = math.frexp(max(value, sys.float_info.min))
    if mantissa == 0.5:  # a power of two is the upper edge of its bucket
        last = exponent - 1
        return (last << scale) - 1 if scale >= 0 else (last - 1) >> -scale
    octave = exponent - 1
    if scale <= 0:
        return octave >> -scale
    place = math.log2(2 * mantissa) * (1 << scale)
    part = math.floor(place)
    if not _NEAR < place - part < 1 - _NEAR:
        part = _exact_log2(2 * mantissa, scale)
    return (octave << scale) + part


def lower_edge(index: int, scale: int) -> float:
    """Return base**index, the exclusive lower edge of a bucket; its upper edge is that of the next."""
    return math.exp2(math.ldexp(index, -scale))


def nanos_of(value: float) -> int:
    """Return a value in billionths of its unit, rounded half to even."""
    numerator, denominator = value.as_integer_ratio()
    whole, rest = divmod(numerator * NANOS, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))


def _exact_log2(x: float, bits: int) -> int:
    """Return floor(log2(x) * 2**bits) for 1 < x < 2: each squaring of x doubles its logarithm and yields one bit."""
    fixed = int(x * 2.0**52) << (_BITS - 52)
    found = 0
    for _ in range(bits):
        fixed = fixed * fixed >> _BITS
        bit = fixed >> (_BITS + 1)
        fixed >>= bit
        found = found << 1 | bit
    return found


def _shift(counts: Mapping[int, int]) -> int:
    """Return by how many bits indices must be shifted for their span to fit."""
    if not counts:
        return 0
    low, high, shift = min(counts), max(counts), 0
    while (high >> shift) - (low >> shift) >= MOST_BUCKETS:
        shift += 1
    return shift


def _trimmed(counts: Mapping[int, int], shift: int) -> Buckets:
    if not counts:
        return Buckets()
    low, high = min(counts) >> shift, max(counts) >> shift
    run = [0] * (high - low + 1)
    for index, count in counts.items():
        run[(index >> shift) - low] += count
    return Buckets(offset=low, counts=tuple(run))


def _indexed(buckets: Buckets, shift: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for place, count in enumerate(buckets.counts):
        if count:
            found[(buckets.offset + place) >> shift] += count
    return found


def _at_rank(histogram: Histogram, rank: int) -> tuple[float, float, float]:
    """Return lower edge, upper edge and estimate of the value with this rank, from 1."""
    below = 0
    for place in range(len(histogram.negative.counts) - 1, -1, -1):
        count = histogram.negative.counts[place]
        if rank <= below + count:
            # Ranks go up as magnitudes go down.
            low, high, value = _within(
                histogram.negative.offset + place, histogram.scale, 1 - (rank - below - 0.5) / count
            )
            return -high, -low, -value
        below += count
    if rank <= below + histogram.zero_count:
        return -histogram.zero_threshold, histogram.zero_threshold, 0.0
    below += histogram.zero_count
    for place, count in enumerate(histogram.positive.counts):
        if rank <= below + count:
            return _within(histogram.positive.offset + place, histogram.scale, (rank - below - 0.5) / count)
        below += count
    raise ValueError(f"rank {rank} of {below} values")


def _within(index: int, scale: int, share: float) -> tuple[float, float, float]:
    low, high = lower_edge(index, scale), lower_edge(index + 1, scale)
    value = math.exp2(math.ldexp(index + share, -scale))
    # Edges are rounded; a step outward keeps the bounds true.
    return math.nextafter(low, 0.0), math.nextafter(high, math.inf), value


def encode(histogram: Histogram) -> bytes:
    """Return a histogram as JSON."""
    return msgspec.json.encode(histogram)


def decode(data: bytes) -> Histogram:
    """Return the histogram in JSON text. Raises msgspec.ValidationError where it is none."""
    return msgspec.json.decode(data, type=Histogram)
