"""Telemetry is counted once, exactly, whatever is sent how often; over both pairs of servers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import msgspec
import pytest

from edgewise.contracts.telemetry import Envelope, encode_envelope
from edgewise.fleet.api.telemetry import Point
from edgewise.fleet.ingest_totals import Totals, add, totals_of
from tests.conformance.fleet.clients import Device, Fleet, bearer
from tests.conformance.fleet.envelopes import NEW, OLD, envelope

JSON = {"content-type": "application/json"}


def send(fleet: Fleet, device: Device, body: bytes) -> int:
    return fleet.http.post("/api/v1/telemetry", content=body, headers=JSON, auth=device).status_code


def totals(fleet: Fleet, product: str, envelopes: int, wait_s: float = 30) -> Totals:
    """Return a product's totals when so many envelopes have been merged."""
    until = time.monotonic() + wait_s
    while True:
        found = fleet.http.get(f"/api/v1/telemetry/{product}?start_ms=0", headers=fleet.operator)
        points = msgspec.json.decode(found.content, type=list[Point])
        whole = reduce(add, (each.totals for each in points), Totals())
        if whole.envelopes >= envelopes or time.monotonic() > until:
            return whole
        time.sleep(0.1)


class TestTelemetry:
    def test_totals_are_those_of_all_envelopes_each_counted_once(self, fleet: Fleet) -> None:
        devices = [fleet.device("totals") for _ in range(4)]
        sent = [(device, envelope(device.name, number)) for device in devices for number in range(12)]
        with ThreadPoolExecutor(8) as pool:
            twice = [*sent, *reversed(sent)]
            statuses = list(pool.map(lambda each: send(fleet, each[0], encode_envelope(each[1])), twice))
        assert set(statuses) == {202}
        assert totals(fleet, "totals", len(sent)) == reduce(add, (totals_of(each) for _, each in sent), Totals())

    def test_a_list_is_taken_whole_or_not_at_all(self, fleet: Fleet) -> None:
        device = fleet.device("lists")
        good = [envelope(device.name, number) for number in range(5)]
        assert send(fleet, device, msgspec.json.encode([*good, envelope("somebody-else", 0)])) == 400
        assert send(fleet, device, msgspec.json.encode(good)) == 202
        assert totals(fleet, "lists", 5) == reduce(add, (totals_of(each) for each in good), Totals())

    def test_a_device_is_shown_with_what_it_last_reported(self, fleet: Fleet) -> None:
        device, silent = fleet.device("seen"), fleet.device("seen")
        before = round(time.time() * 1000) - 1000
        for number, releases in enumerate(((OLD, NEW), (NEW, OLD))):  # the second time it swaps back in one request
            windows = [envelope(device.name, 2 * number + at, release=each) for at, each in enumerate(releases)]
            assert send(fleet, device, msgspec.json.encode(windows)) == 202
            totals(fleet, "seen", 2 * number + 2)
        found = fleet.http.get(f"/api/v1/devices/{device.name}", headers=fleet.operator).json()
        assert found["release"] == OLD
        assert found["seen_ms"] >= before
        listed = fleet.http.get("/api/v1/devices?limit=1000", headers=fleet.operator).json()
        assert found in listed
        assert [(each["release"], each["seen_ms"]) for each in listed if each["id"] == silent.name] == [(None, None)]

    def test_releases_are_kept_apart(self, fleet: Fleet) -> None:
        device = fleet.device("apart")
        for number, release in enumerate((OLD, NEW)):
            assert send(fleet, device, encode_envelope(envelope(device.name, number, release=release))) == 202
        totals(fleet, "apart", 2)
        points = fleet.http.get("/api/v1/telemetry/apart", headers=fleet.operator).json()
        assert sorted(each["release"] for each in points) == [OLD, NEW]

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[", b"[{}]", b"null", b"\xff\xfe", b"[" * 5000, b"{}", b'{"device": "x", "what": 1}'],
    )
    def test_what_is_no_envelope_is_refused(self, fleet: Fleet, body: bytes) -> None:
        assert send(fleet, fleet.device("bad"), body) == 400

    def test_another_class_an_old_window_or_too_much_is_refused(self, fleet: Fleet) -> None:
        device = fleet.device("bad")
        other = msgspec.structs.replace(envelope(device.name, 0), device_class="tpu")
        old = envelope(device.name, 1, start_unix_ms=int(time.time() * 1000) - 40 * 24 * 3_600_000)
        assert [send(fleet, device, encode_envelope(each)) for each in (other, old)] == [400, 400]
        assert send(fleet, device, b" " * (3 * 1024 * 1024)) == 413

    def test_histograms_that_cannot_be_merged_are_kept_and_told(self, fleet: Fleet) -> None:
        device = fleet.device("faults")
        first, second = envelope(device.name, 0), envelope(device.name, 1)
        wide = {name: msgspec.structs.replace(each, zero_threshold=1e-9) for name, each in second.histograms.items()}
        assert send(fleet, device, encode_envelope(first)) == 202
        assert totals(fleet, "faults", 1) == totals_of(first)
        assert send(fleet, device, encode_envelope(msgspec.structs.replace(second, histograms=wide))) == 202
        third: Envelope = envelope(device.name, 2)
        assert send(fleet, device, encode_envelope(third)) == 202
        assert totals(fleet, "faults", 2) == add(totals_of(first), totals_of(third))

    def test_a_viewer_sends_none_and_a_stranger_reads_none(self, fleet: Fleet) -> None:
        viewer = fleet.token("viewer", "vision")
        body = encode_envelope(envelope("any", 0))
        assert fleet.http.post("/api/v1/telemetry", content=body, headers=viewer | JSON).status_code == 401
        assert fleet.http.get("/api/v1/telemetry/totals", headers=viewer).status_code == 404
        assert fleet.http.get("/api/v1/telemetry/totals", headers=bearer("none")).status_code == 401
