"""What is exported is what the protocol's own code reads, figure by figure."""

from __future__ import annotations

import msgspec
import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.telemetry import ENERGY_MJ, LATENCY_MS, Sketch
from edgewise.device.uplink.otlp import export_request
from edgewise.fleet.ingest_otlp import histogram_of_point
from tests.unit.device.uplink.devices import window


def test_the_protocols_own_code_reads_every_figure() -> None:
    signs = histogram_of([-3.0, -0.5, 0.0, 0.25, 7.5])
    made = msgspec.structs.replace(
        window(3),
        histograms={LATENCY_MS: histogram_of([0.5, 1.0, 90.0]), ENERGY_MJ: signs},
        crashes=2,
        crash_loop=True,
        lost_windows=7,
        sketches={"margin": Sketch(edges=(0.5,), counts=(1, 2))},
    )
    request = Parse(export_request([made, window(4)]), ExportMetricsServiceRequest())  # unknown fields are an error
    assert len(request.resource_metrics) == 2
    resource = request.resource_metrics[0]
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.instance.id"] == "device-1"
    assert (attributes["edgewise.release"], attributes["edgewise.variant"]) == ("a" * 64, "int8")
    metrics = {each.name: each for each in resource.scope_metrics[0].metrics}
    counts = {name: each.sum.data_points[0].as_int for name, each in metrics.items() if each.HasField("sum")}
    assert counts == {
        "requests": 1,
        "outcome.local": 1,
        "windows": 1,
        "crashes": 2,
        "lost_windows": 7,
        "crash_loops": 1,
        "signature_failures": 0,
    }
    assert all(each.sum.aggregation_temporality == 1 for each in metrics.values() if each.HasField("sum"))
    assert all(each.sum.is_monotonic for each in metrics.values() if each.HasField("sum"))
    for name, histogram in made.histograms.items():
        data = metrics[name].exponential_histogram
        assert data.aggregation_temporality == 1
        (point,) = data.data_points
        assert histogram_of_point(point) == histogram
        assert point.count == histogram.count
        assert point.sum == pytest.approx(histogram.total)
        assert point.start_time_unix_nano == made.start_unix_ms * 1_000_000
        assert point.time_unix_nano == made.end_unix_ms * 1_000_000
    assert (metrics[LATENCY_MS].unit, metrics[ENERGY_MJ].unit) == ("ms", "mJ")
