"""OTLP/HTTP metrics in, as OpenTelemetry's exporters and collectors send them, and out.

In: delta sums of whole numbers become counters, delta exponential histograms become ours, bucket by bucket: the rule
is the same, so nothing is rounded but the sum, to billionths. What cannot be taken exactly (cumulative values, gauges,
classic histograms) is rejected by count, with the reason, in the answer, as the protocol asks.
Out: totals as exponential histograms and sums with delta temporality, one data point per five minutes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from edgewise.contracts.histogram import LARGEST_VALUE, Histogram, assembled, merge, nanos_of
from edgewise.contracts.telemetry import Envelope
from edgewise.errors import TelemetryError
from edgewise.fleet.store.devices import Identity

PROTOBUF, JSON = "application/x-protobuf", "application/json"
BOOT = "otlp"
MOST_DEPTH = 32
NS_PER_MS = 1_000_000
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
RELEASE, VARIANT = "edgewise.release", "edgewise.variant"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a request held: the envelopes made of it, how many points were rejected, and why."""

    envelopes: tuple[Envelope, ...]
    rejected: int
    reason: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A figure to be sent on, with delta temporality."""

    name: str
    attributes: Mapping[str, str]
    start_ms: int
    end_ms: int
    value: Histogram | int


class _Points(msgspec.Struct, kw_only=True):
    """What was found of one release and variant."""

    start_ns: int = 2**63 - 1
    end_ns: int = 0
    histograms: dict[str, Histogram] = msgspec.field(default_factory=dict)
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    rejected: list[str] = msgspec.field(default_factory=list)


def expanded(body: bytes, encoding: str, *, limit_bytes: int) -> bytes:
    """Return a body without its compression. Raises TelemetryError where it is too large or no gzip."""
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise TelemetryError(f"the content encoding {encoding[:40]}", required="gzip, or none")
    stream = zlib.decompressobj(wbits=31)
    try:
        whole = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise TelemetryError(f"the body is no gzip: {error}") from error
    if len(whole) > limit_bytes or not stream.eof:
        raise TelemetryError(f"the body expands to more than {limit_bytes} bytes, or is cut off")
    return whole


def parsed(body: bytes, media_type: str) -> Any:
    """Return the request of a body, protobuf or JSON. Raises TelemetryError."""
    request = ExportMetricsServiceRequest()
    try:
        if media_type == JSON:
            Parse(body, request, ignore_unknown_fields=True, max_recursion_depth=MOST_DEPTH)
        else:
            request.ParseFromString(body)
    except (DecodeError, ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise TelemetryError("the body is not an OTLP metrics request", required=f"{PROTOBUF} or {JSON}") from error
    return request


def taken(request: Any, device: Identity, *, body: bytes) -> Taken:
    """Return what a request of a device holds. The key of idempotence is the digest of its bytes: a retry is known."""
    found: dict[tuple[str, str], _Points] = {}
    for resource in request.resource_metrics:
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        points = found.setdefault((names.get(RELEASE, ""), names.get(VARIANT, "")), _Points())
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                _take_metric(metric, points)
    envelopes, reasons = [], []
    number = int.from_bytes(hashlib.sha256(body).digest()[:6], "big")
    for place, ((release, variant), points) in enumerate(sorted(found.items())):
        if points.end_ns:
            try:
                envelopes.append(_envelope(device, points, release, variant, sequence=16 * number + place))
            except ValueError as error:
                points.rejected.append(str(error))
        reasons += points.rejected
    return Taken(envelopes=tuple(envelopes), rejected=len(reasons), reason="; ".join(sorted(set(reasons)))[:500])


def answered(found: Taken, media_type: str) -> bytes:
    """Return the body of the answer: what was rejected, if anything."""
    if media_type == JSON:
        partial = {"rejectedDataPoints": str(found.rejected), "errorMessage": found.reason}
        return msgspec.json.encode({"partialSuccess": partial} if found.rejected else {})
    response = ExportMetricsServiceResponse()
    if found.rejected:
        response.partial_success.rejected_data_points = found.rejected
        response.partial_success.error_message = found.reason
    return bytes(response.SerializeToString())


def exported(points: Iterable[Point]) -> bytes:
    """Return a request with these points, as protobuf."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.scope.name = "edgewise"
    for each in points:
        metric = scope.metrics.add(name=each.name)
        if isinstance(each.value, Histogram):
            metric.exponential_histogram.aggregation_temporality = DELTA
            point = metric.exponential_histogram.data_points.add()
            _fill(point, each.value)
        else:
            metric.sum.aggregation_temporality, metric.sum.is_monotonic = DELTA, True
            point = metric.sum.data_points.add(as_int=each.value)
        point.start_time_unix_nano, point.time_unix_nano = each.start_ms * NS_PER_MS, each.end_ms * NS_PER_MS
        for key, text in each.attributes.items():
            point.attributes.add(key=key).value.string_value = text
    return bytes(request.SerializeToString())


def _fill(point: Any, value: Histogram) -> None:
    point.count, point.sum, point.scale = value.count, value.total, value.scale
    point.zero_count, point.zero_threshold = value.zero_count, value.zero_threshold
    for side, buckets in ((point.positive, value.positive), (point.negative, value.negative)):
        side.offset = buckets.offset
        side.bucket_counts.extend(buckets.counts)
    if value.minimum is not None and value.maximum is not None:
        point.min, point.max = value.minimum, value.maximum


def _take_metric(metric: Any, points: _Points) -> None:
    kind = metric.WhichOneof("data")
    if kind not in {"sum", "exponential_histogram"}:
        count = len(getattr(metric, kind).data_points) if kind else 1
        points.rejected += [f"{kind or 'nothing'} is not taken: delta sums and exponential histograms are"] * count
        return
    data = getattr(metric, kind)
    for point in data.data_points:
        try:
            _check_delta(data)
            if kind == "sum":
                _add_count(metric.name, point, points)
            else:
                _add_histogram(metric.name, point, points)
        except ValueError as error:
            points.rejected.append(str(error))
            continue
        points.start_ns = min(points.start_ns, point.start_time_unix_nano or point.time_unix_nano)
        points.end_ns = max(points.end_ns, point.time_unix_nano)


def _check_delta(data: Any) -> None:
    if data.aggregation_temporality != DELTA:
        raise ValueError("cumulative values are not taken: set the exporter to delta temporality")


def _add_count(name: str, point: Any, points: _Points) -> None:
    if point.WhichOneof("value") != "as_int" or point.as_int < 0:
        raise ValueError("sums of whole numbers, not below 0, are taken")
    points.counters[name] = points.counters.get(name, 0) + point.as_int


def _add_histogram(name: str, point: Any, points: _Points) -> None:
    histogram = histogram_of_point(point)
    known = points.histograms.get(name)
    points.histograms[name] = histogram if known is None else merge(known, histogram)


def histogram_of_point(point: Any) -> Histogram:
    """Return our histogram of OpenTelemetry's. Raises ValueError where it lacks something or contradicts itself."""
    if not (point.HasField("sum") and point.HasField("min") and point.HasField("max")):
        raise ValueError("histograms with sum, min and max are taken")
    sides = []
    for side in (point.positive, point.negative):
        counts = {side.offset + place: count for place, count in enumerate(side.bucket_counts) if count}
        sides.append(counts)
    if not all(abs(value) <= LARGEST_VALUE for value in (point.sum / max(point.count, 1), point.min, point.max)):
        raise ValueError("a value is not finite, or beyond 2**53")
    return assembled(
        point.scale,
        sides[0],
        sides[1],
        zero_count=point.zero_count,
        zero_threshold=point.zero_threshold,
        nanos=min(max(nanos_of(point.sum), nanos_of(point.min) * point.count), nanos_of(point.max) * point.count),
        extremes=(point.min, point.max) if point.count else None,
    )


def _envelope(device: Identity, points: _Points, release: str, variant: str, *, sequence: int) -> Envelope:
    return Envelope(
        device=device.id,
        boot=BOOT,
        sequence=sequence,
        start_unix_ms=points.start_ns // NS_PER_MS,
        end_unix_ms=points.end_ns // NS_PER_MS,
        device_class=device.device_class,
        release=release,
        variant=variant,
        histograms=points.histograms,
        counters=points.counters,
    )
