"""Telemetry sent on to a collector: each figure arrives once, whatever collector and server go through."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from edgewise.contracts.telemetry import encode_envelope
from edgewise.errors import ConfigError
from edgewise.fleet import administer
from edgewise.fleet.push import CLAIM_MS, check_url
from tests.conformance.fleet.backends import free_port, postgresql_and_s3, sqlite_and_folder, start_server
from tests.conformance.fleet.clients import Fleet
from tests.conformance.fleet.envelopes import envelope

JSON = {"content-type": "application/json"}


class Collector:
    """A real HTTP server that keeps what it takes; `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[ExportMetricsServiceRequest] = []
        self.refused = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.status == 200:
                    request = ExportMetricsServiceRequest()
                    request.ParseFromString(body)
                    collector.requests.append(request)
                else:
                    collector.refused += 1
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/metrics"

    def counted(self) -> Counter[str]:
        """Return the sums of all counts that came in, and how many values the histograms hold."""
        found: Counter[str] = Counter()
        for request in list(self.requests):
            for metric in request.resource_metrics[0].scope_metrics[0].metrics:
                for point in metric.sum.data_points:
                    found[metric.name] += point.as_int
                for bucketed in metric.exponential_histogram.data_points:
                    found[metric.name] += bucketed.count
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def awaited(collector: Collector, requests: int) -> Counter[str]:
    # A server that was killed while it sent something gives that up after its claim only.
    until = time.monotonic() + CLAIM_MS / 1000 + 40
    while collector.counted()["requests"] < requests and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)  # what comes twice would come now
    return collector.counted()


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_what_devices_report_reaches_the_collector_once(
    name: str, collector: Collector, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "sqlite":
        backend = sqlite_and_folder(tmp_path)
    else:
        backend = postgresql_and_s3(request.getfixturevalue("postgresql"), request.getfixturevalue("s3"))
    token, port, log = administer.first_token(backend.database).text, free_port(), tmp_path / "server.jsonl"
    options = ("--tick", "0.05", "--otlp", collector.url)
    server = start_server(backend, port, *options, log=log)
    fleet = Fleet(f"http://127.0.0.1:{port}", token, token)
    try:
        device = fleet.device("kws")
        sent = [envelope(device.name, number) for number in range(8)]

        def report(part: slice) -> int:
            for each in sent[part]:
                body = encode_envelope(each)
                answer = fleet.http.post("/api/v1/telemetry", content=body, headers=JSON, auth=device)
                assert answer.status_code == 202
            return sum(each.counters["requests"] for each in sent[: part.stop])

        first = awaited(collector, report(slice(0, 3)))
        assert first["requests"] == sum(each.counters["requests"] for each in sent[:3])
        assert first["latency_ms"] == sum(each.histograms["latency_ms"].count for each in sent[:3])

        collector.status = 503
        wanted = report(slice(3, 8))
        until = time.monotonic() + 20
        while not collector.refused and time.monotonic() < until:
            time.sleep(0.05)
        assert collector.refused
        server.kill()
        server.wait()
        collector.status = 200
        server = start_server(backend, port, *options, log=log)
        assert awaited(collector, wanted)["requests"] == wanted
    finally:
        fleet.close()
        server.kill()
        server.wait()


@pytest.mark.parametrize("url", ["", "collector:4318", "ftp://host/", "http://", "http://[::1", "http://host:99999/"])
def test_what_is_no_address_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--otlp"):
        check_url(url)
