"""OTLP/HTTP metrics in and out, bucket by bucket; over both pairs of servers."""

from __future__ import annotations

import gzip
import time
from random import Random
from uuid import uuid4

import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from edgewise.contracts.histogram import Histogram, histogram_of
from edgewise.fleet.ingest_otlp import histogram_of_point
from tests.conformance.fleet.clients import Device, Fleet, bearer
from tests.conformance.fleet.envelopes import OLD
from tests.conformance.fleet.test_telemetry import totals

PROTOBUF, JSON = "application/x-protobuf", "application/json"
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def latencies(seed: int) -> Histogram:
    draw = Random(seed)  # noqa: S311 - latencies, no secret
    return histogram_of([draw.lognormvariate(0, 1) for _ in range(200)])


def export(histogram: Histogram, temporality: int = DELTA) -> ExportMetricsServiceRequest:
    """Return what an exporter sends: a histogram of latencies, and a count."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for key, text in (("edgewise.release", OLD), ("edgewise.variant", "int8")):
        resource.resource.attributes.add(key=key).value.string_value = text
    scope = resource.scope_metrics.add()
    metric = scope.metrics.add(name="latency_ms")
    metric.exponential_histogram.aggregation_temporality = temporality
    point = metric.exponential_histogram.data_points.add(count=histogram.count, sum=histogram.total)
    point.scale, point.min, point.max = histogram.scale, histogram.minimum or 0, histogram.maximum or 0
    point.positive.offset = histogram.positive.offset
    point.positive.bucket_counts.extend(histogram.positive.counts)
    count = scope.metrics.add(name="requests")
    count.sum.aggregation_temporality, count.sum.is_monotonic = temporality, True
    number = count.sum.data_points.add(as_int=histogram.count)
    now = time.time_ns()
    for each in (point, number):
        each.start_time_unix_nano, each.time_unix_nano = now - 10**9, now
    return request


@pytest.fixture
def sender(fleet: Fleet) -> tuple[str, Device, dict[str, str]]:
    product = f"product-{uuid4().hex[:8]}"
    device = fleet.device(product)
    token = fleet.http.post(f"/api/v1/devices/{device.name}/token", headers=fleet.operator).json()["token"]
    return product, device, bearer(token)


class TestOtlp:
    def test_what_is_sent_arrives_exactly_and_a_retry_counts_once(
        self, fleet: Fleet, sender: tuple[str, Device, dict[str, str]]
    ) -> None:
        product, device, token = sender
        requests = [export(latencies(seed)) for seed in range(3)]
        plain = requests[0].SerializeToString()
        text = MessageToJson(requests[1]).encode()
        packed = gzip.compress(requests[2].SerializeToString())
        for _ in range(2):
            for body, headers in (
                (plain, {"content-type": PROTOBUF}),
                (text, {"content-type": JSON}),
                (packed, {"content-type": PROTOBUF, "content-encoding": "gzip"}),
            ):
                found = fleet.http.post("/v1/metrics", content=body, headers=headers | token)
                assert (found.status_code, found.headers["content-type"]) == (200, headers["content-type"])
        whole = totals(fleet, product, 3)
        assert whole.envelopes == 3
        expected = histogram_of(_values(range(3)))
        found_histogram = whole.histograms["latency_ms"]
        assert found_histogram.positive == expected.positive
        assert (found_histogram.scale, found_histogram.minimum) == (expected.scale, expected.minimum)
        assert found_histogram.total == pytest.approx(expected.total, abs=1e-6)
        assert whole.counters["requests"] == 600
        assert fleet.http.post("/v1/metrics", content=plain, auth=device).status_code == 200

    def test_what_was_merged_is_given_on_bucket_by_bucket(
        self, fleet: Fleet, sender: tuple[str, Device, dict[str, str]]
    ) -> None:
        product, _, token = sender
        headers = {"content-type": PROTOBUF} | token
        assert fleet.http.post(
            "/v1/metrics", content=export(latencies(7)).SerializeToString(), headers=headers
        ).is_success
        whole = totals(fleet, product, 1)
        given = fleet.http.get(f"/api/v1/telemetry/{product}/otlp", headers=fleet.operator)
        request = ExportMetricsServiceRequest.FromString(given.content)
        metrics = {each.name: each for each in request.resource_metrics[0].scope_metrics[0].metrics}
        point = metrics["latency_ms"].exponential_histogram.data_points[0]
        assert histogram_of_point(point) == whole.histograms["latency_ms"]
        assert metrics["requests"].sum.data_points[0].as_int == 200

    def test_cumulative_values_are_rejected_and_told(
        self, fleet: Fleet, sender: tuple[str, Device, dict[str, str]]
    ) -> None:
        body = export(latencies(1), CUMULATIVE).SerializeToString()
        found = fleet.http.post("/v1/metrics", content=body, headers={"content-type": PROTOBUF} | sender[2])
        partial = ExportMetricsServiceResponse.FromString(found.content).partial_success
        assert (partial.rejected_data_points, "delta" in partial.error_message) == (2, True)

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"\xff\xff\xff", {"content-type": PROTOBUF}),
            (b"{", {"content-type": JSON}),
            (b"[" * 5000, {"content-type": JSON}),
            (b"no gzip", {"content-type": PROTOBUF, "content-encoding": "gzip"}),
            (gzip.compress(b"\0" * 50_000_000), {"content-type": PROTOBUF, "content-encoding": "gzip"}),
            (b"x", {"content-type": PROTOBUF, "content-encoding": "br"}),
        ],
    )
    def test_what_is_no_request_or_too_large_is_refused(
        self, fleet: Fleet, sender: tuple[str, Device, dict[str, str]], body: bytes, headers: dict[str, str]
    ) -> None:
        assert fleet.http.post("/v1/metrics", content=body, headers=headers | sender[2]).status_code == 400

    def test_nobody_sends_without_a_device(self, fleet: Fleet) -> None:
        assert fleet.http.post("/v1/metrics", content=b"", headers={"content-type": PROTOBUF}).status_code == 401


def _values(seeds: range) -> list[float]:
    values = []
    for seed in seeds:
        draw = Random(seed)  # noqa: S311 - latencies, no secret
        values += [draw.lognormvariate(0, 1) for _ in range(200)]
    return values
