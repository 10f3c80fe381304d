"""Envelopes as OTLP metrics, in the JSON encoding of its protobuf: keys in lowerCamelCase, 64-bit integers as text.

Histograms become exponential histograms bucket by bucket, counts become monotonic sums, both with delta temporality
(OpenTelemetry metrics data model; OTLP specification, "JSON Protobuf Encoding"). Sketches stay behind: no kind of
metric of OpenTelemetry keeps given edges and delta temporality but the classic histogram, which asks for a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgewise import __version__
from edgewise.contracts.histogram import Buckets, Histogram
from edgewise.contracts.telemetry import Envelope

DELTA = 1
"""AGGREGATION_TEMPORALITY_DELTA; enumerations are numbers in this encoding."""
NS_PER_MS = 1_000_000
UNITS = {"_ms": "ms", "_us": "us", "_mj": "mJ"}


def export_request(envelopes: Sequence[Envelope]) -> bytes:
    """Return an `ExportMetricsServiceRequest` with one resource for each envelope."""
    return msgspec.json.encode({"resourceMetrics": [_resource(each) for each in envelopes]})


def _resource(envelope: Envelope) -> dict[str, Any]:
    attributes = {
        "service.name": "edgewise",
        "service.instance.id": envelope.device,
        "edgewise.boot": envelope.boot,
        "edgewise.device_class": envelope.device_class,
        "edgewise.release": envelope.release,
        "edgewise.variant": envelope.variant,
    }
    span = {
        "startTimeUnixNano": str(envelope.start_unix_ms * NS_PER_MS),
        "timeUnixNano": str(envelope.end_unix_ms * NS_PER_MS),
    }
    metrics = [_histogram(name, each, span) for name, each in envelope.histograms.items()]
    metrics += [_sum(name, count, span) for name, count in _counts(envelope).items()]
    return {
        "resource": {"attributes": [{"key": key, "value": {"stringValue": text}} for key, text in attributes.items()]},
        "scopeMetrics": [{"scope": {"name": "edgewise", "version": __version__}, "metrics": metrics}],
    }


def _counts(envelope: Envelope) -> dict[str, int]:
    outcomes = {f"outcome.{kind}": count for kind, count in envelope.outcomes.items()}
    always = {"windows": 1, "crashes": envelope.crashes, "lost_windows": envelope.lost_windows}
    rare = {"crash_loops": int(envelope.crash_loop), "signature_failures": envelope.signature_failures}
    return {**envelope.counters, **outcomes, **always, **rare}


def _sum(name: str, count: int, span: dict[str, str]) -> dict[str, Any]:
    point = {**span, "asInt": str(count)}
    return {"name": name, "sum": {"aggregationTemporality": DELTA, "isMonotonic": True, "dataPoints": [point]}}


def _histogram(name: str, histogram: Histogram, span: dict[str, str]) -> dict[str, Any]:
    point = {
        **span,
        "count": str(histogram.count),
        "sum": histogram.total,
        "scale": histogram.scale,
        "zeroCount": str(histogram.zero_count),
        "zeroThreshold": histogram.zero_threshold,
        "positive": _side(histogram.positive),
        "negative": _side(histogram.negative),
    }
    if histogram.minimum is not None:
        point |= {"min": histogram.minimum, "max": histogram.maximum}
    unit = UNITS.get(name[name.rfind("_") :], "")
    return {
        "name": name,
        "unit": unit,
        "exponentialHistogram": {"aggregationTemporality": DELTA, "dataPoints": [point]},
    }


def _side(buckets: Buckets) -> dict[str, Any]:
    return {"offset": buckets.offset, "bucketCounts": [str(count) for count in buckets.counts]}
