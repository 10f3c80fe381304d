"""A device that was away for weeks reports to a real server: bounded, counted, exact, once."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from edgewise.contracts.capture import EDGES, FleetCapture
from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS, Envelope, decode_envelope
from edgewise.device.capture.sketches import Capture
from edgewise.device.trust.transport import Reply, Sent, Transport
from edgewise.device.uplink.collector import Collector, Reporter, new_boot
from edgewise.device.uplink.dating import Dating
from edgewise.device.uplink.destinations import FleetServer, OtlpCollector, signed
from edgewise.device.uplink.send import PACE, Uplink
from edgewise.device.uplink.spool import LEAST_LIMIT_BYTES, NAME, Spool
from edgewise.errors import UnreachableError
from edgewise.fleet.api.telemetry import Point
from edgewise.fleet.ingest_totals import Totals, add
from tests.conformance.fleet.backends import free_port
from tests.conformance.fleet.clients import Device, Fleet
from tests.unit.device.uplink.devices import RELEASE, Clock, latencies, window

DAY_MS = 24 * 3_600_000
WINDOW_MS = 20 * 60_000
WINDOWS = 14 * DAY_MS // WINDOW_MS


class Watched(Transport):
    """Notes the keys of what is sent; loses some answers."""

    def __init__(self, lost_answers: int = 0) -> None:
        super().__init__(PACE)
        self.batches: list[list[Envelope]] = []
        self.lost_answers = lost_answers

    @contextlib.contextmanager
    def post(self, url: str, make: Callable[[str], Sent]) -> Iterator[Reply]:
        def noted(target: str) -> Sent:
            sent = make(target)
            self.batches.append(
                [decode_envelope(bytes(each)) for each in msgspec.json.decode(sent.body, type=list[msgspec.Raw])]
            )
            return sent

        with super().post(url, noted) as reply:
            if self.lost_answers:
                self.lost_answers -= 1
                raise UnreachableError("the answer was lost")
            yield reply


def whole_totals(fleet: Fleet, product: str, requests: int, wait_s: float = 60) -> Totals:
    """Return all weeks' totals, when so many requests have been merged."""
    until, now_ms = time.monotonic() + wait_s, int(time.time() * 1000)
    while True:
        whole = Totals()
        for week in range(5):
            stop = now_ms + DAY_MS - 7 * DAY_MS * week
            times = {"start_ms": stop - 7 * DAY_MS, "stop_ms": stop}
            found = fleet.http.get(f"/api/v1/telemetry/{product}", params=times, headers=fleet.operator)
            points = msgspec.json.decode(found.content, type=list[Point])
            whole = reduce(add, (each.totals for each in points), whole)
        if whole.counters.get(REQUESTS, 0) >= requests or time.monotonic() > until:
            return whole
        time.sleep(0.2)


def away_for_two_weeks(folder: Path, *, name: str, variants: int) -> Path:
    """Store two weeks of windows with nobody to send them to; return the folder of the spool."""
    clock = Clock(int(time.time() * 1000) - 14 * DAY_MS)
    spool, device = Spool.open(folder, limit_bytes=LEAST_LIMIT_BYTES), Device(name)
    nowhere = FleetServer(f"http://127.0.0.1:{free_port()}", device=name, sign=device.key.sign)
    uplink = Uplink(spool, nowhere, clock.dating, boot="boot-1")
    for number in range(WINDOWS):
        start_ms = clock.wall_ms
        clock.advance(WINDOW_MS)
        variant = f"v{number % variants}"
        made = window(number, device=name, start_ms=start_ms, lasts_ms=WINDOW_MS, variant=variant)
        uplink.store([made])
        if number % 200 == 0:
            progress = uplink.send()
            assert progress.sent == 0
            assert "next:" in progress.problem
            assert progress.wait_s > 0
        if number % 50 == 0:
            size = sum(path.stat().st_size for path in folder.glob(f"{NAME}*"))
            assert size < 3 * LEAST_LIMIT_BYTES // 2 + 512 * 1024  # pages are not full, and the log
    spool.close()
    return folder


@pytest.fixture(scope="session")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return away_for_two_weeks(tmp_path_factory.mktemp("merging"), name="away-merging", variants=2)


@pytest.fixture(scope="session")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a spool of windows of which no two can be merged."""
    return away_for_two_weeks(tmp_path_factory.mktemp("dropping"), name="away-dropping", variants=WINDOWS)


def home_again(fleet: Fleet, name: str, transport: Watched, folder: Path, spool: Spool) -> tuple[Uplink, Clock]:
    device, clock = Device(name), Clock(int(time.time() * 1000))
    assert fleet.enrol(device, fleet.enrolment(folder.name)).status_code == 201
    home = FleetServer(fleet.url, device=name, sign=device.key.sign)
    return Uplink(spool, home, clock.dating, boot="boot-2", transport=transport), clock


def expected(numbers: list[int]) -> list[float]:
    return [value for number in numbers for value in latencies(number)]


class TestTwoWeeksAway:
    def test_nothing_is_lost_where_merging_is_enough(self, fleet: Fleet, merging: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(merging, tmp_path / f"merging-{uuid4().hex[:8]}"))
        spool, transport = Spool.open(folder, limit_bytes=LEAST_LIMIT_BYTES), Watched(lost_answers=2)
        held, lengths = spool.held(), _lengths(folder, "v0")
        assert (held.windows, held.lost_windows) == (WINDOWS, 0)
        assert lengths == sorted(lengths, reverse=True)  # the older, the coarser
        assert lengths[0] > WINDOW_MS == lengths[-1]
        uplink, _ = home_again(fleet, "away-merging", transport, folder, spool)
        assert sum(1 for _ in iter(lambda: uplink.send().left, 0)) == 2  # an answer is lost
        keys = [[each.key for each in batch] for batch in transport.batches]
        assert keys[0] == keys[1] == keys[2], "what may have arrived is sent again as it was"
        sent = [key for batch in keys[2:] for key in batch]
        assert len(sent) == len(set(sent)) == held.envelopes, "nothing is sent again once it is acknowledged"
        assert uplink.send().sent == 0
        spool.close()
        whole = whole_totals(fleet, folder.name, WINDOWS)
        assert whole.histograms[LATENCY_MS] == histogram_of(expected(list(range(WINDOWS))))
        assert (whole.counters[REQUESTS], whole.lost_windows, whole.envelopes) == (WINDOWS, 0, held.envelopes)

    def test_what_had_to_be_dropped_is_counted_and_the_rest_is_exact(
        self, fleet: Fleet, dropping: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(dropping, tmp_path / f"dropping-{uuid4().hex[:8]}"))
        spool, transport = Spool.open(folder, limit_bytes=LEAST_LIMIT_BYTES), Watched()
        held = spool.held()
        assert held.envelopes == held.windows < WINDOWS
        uplink, clock = home_again(fleet, "away-dropping", transport, folder, spool)
        uplink.store([window(0, device="away-dropping", boot="boot-2", start_ms=clock.wall_ms, lasts_ms=1)])
        while uplink.send().left:
            pass
        pending = spool.held().lost_windows  # for the next window to say
        spool.close()
        sent = [each for batch in transport.batches for each in batch]
        numbers = [each.sequence for each in sent if each.boot == "boot-1"]
        assert numbers == list(range(WINDOWS - len(numbers), WINDOWS)), "the oldest go first"
        whole = whole_totals(fleet, folder.name, len(sent))
        assert whole.histograms[LATENCY_MS] == histogram_of(expected([*numbers, 0]))
        assert whole.lost_windows + whole.counters[REQUESTS] + pending == WINDOWS + 1

    def test_a_clock_that_was_wrong_for_the_whole_time_is_put_right(self, fleet: Fleet, tmp_path: Path) -> None:
        product = f"clock-{uuid4().hex[:8]}"
        device = fleet.device(product)
        clock = Clock(86_400_000)  # 1970, as without a battery
        spool = Spool.open(tmp_path)
        home = FleetServer(fleet.url, device=device.name, sign=device.key.sign)
        uplink = Uplink(spool, home, clock.dating, boot="boot-1")
        for number in range(4):
            start_ms = clock.dating.now_ms()
            clock.advance(WINDOW_MS)
            uplink.store([window(number, device=device.name, start_ms=start_ms, lasts_ms=WINDOW_MS)])
        assert uplink.send().sent == 4
        spool.close()
        assert whole_totals(fleet, product, 4).histograms[LATENCY_MS] == histogram_of(expected([0, 1, 2, 3]))


@pytest.mark.parametrize("copies", [1, 2])
def test_the_servers_otlp_intake_takes_the_same_figures(fleet: Fleet, tmp_path: Path, copies: int) -> None:
    product = f"otlp-{uuid4().hex[:8]}"
    device = fleet.device(product)
    spool = Spool.open(tmp_path)
    now_ms = int(time.time() * 1000)
    spool.put([window(each, device=device.name, start_ms=now_ms - 1000 * each, lasts_ms=1000) for each in range(5)])
    claimed = spool.claim(most=9, most_bytes=1 << 20)
    collector = OtlpCollector(fleet.url, headers=signed(device.name, device.key.sign))
    for _ in range(copies):  # the second is one whose acknowledgement was lost: the same bytes
        with Transport(PACE).post(
            collector.url, lambda target: collector.sent(target, [each.document for each in claimed], now_ms // 1000)
        ) as reply:
            body = b"".join(reply.chunks())
            assert collector.judge(reply.status, body, len(claimed)) == ("taken", "")
    spool.close()
    whole = whole_totals(fleet, product, 5)
    found, wanted = whole.histograms[LATENCY_MS], histogram_of(expected(list(range(5))))
    assert (found.positive, found.scale, found.minimum, found.maximum) == (
        wanted.positive,
        wanted.scale,
        wanted.minimum,
        wanted.maximum,
    )
    assert found.total == pytest.approx(wanted.total, abs=1e-6)
    assert (whole.counters[REQUESTS], whole.counters["outcome.local"]) == (5, 5)


def _lengths(folder: Path, variant: str) -> list[int]:
    """Return the lengths of a variant's windows, oldest first."""
    connection = sqlite3.connect(folder / NAME)
    with contextlib.closing(connection):
        documents = connection.execute("SELECT document FROM envelope ORDER BY number").fetchall()
    found = [decode_envelope(each) for (each,) in documents]
    return [each.end_unix_ms - each.start_unix_ms for each in found if each.variant == variant]


def test_what_devices_sketch_of_their_inputs_is_given_out_added_up(fleet: Fleet, tmp_path: Path) -> None:
    product, draw = f"capture-{uuid4().hex[:8]}", np.random.default_rng(0)
    seen = []
    for number in range(2):
        device, now_s, dating = fleet.device(product), [0.0], Dating()
        capture = Capture({"x": np.zeros((1, 4), np.float32)}, clock=lambda: now_s[0])  # noqa: B023 - called at once
        for _ in range(20):
            now_s[0] += 1
            seen.append(draw.normal(0, 5, (1, 4)).astype(np.float32))
            capture.offer({"x": seen[-1]}, 0.5)
        collector = Collector(Reporter(device=device.name, device_class="pi5", boot=new_boot()), dating)
        now_s[0] += 3600
        capture.into(collector.running(RELEASE, "int8"))
        spool = Spool.open(tmp_path / str(number))
        home = FleetServer(fleet.url, device=device.name, sign=device.key.sign)
        uplink = Uplink(spool, home, dating, boot="any")
        uplink.store(collector.drain())
        assert uplink.send().sent == 1
        spool.close()
    address, until = f"/api/v1/captures/{product}/{RELEASE}", time.monotonic() + 30
    while (answer := fleet.http.get(address, headers=fleet.operator)).status_code == 404 and time.monotonic() < until:
        time.sleep(0.1)
    found = msgspec.json.decode(answer.content, type=FleetCapture)
    while found.reports < 2 and time.monotonic() < until:
        found = msgspec.json.decode(fleet.http.get(address, headers=fleet.operator).content, type=FleetCapture)
    assert (found.reports, found.noise) == (2, 0)
    for channel in range(4):
        values = np.concatenate(seen)[:, channel]
        expected = np.bincount(np.searchsorted(EDGES, values, side="right"), minlength=len(EDGES) + 1)
        assert found.sketches[f"capture.0.{channel}.high"].counts == tuple(expected)
    assert fleet.http.get(address, headers=fleet.token("viewer", "another")).status_code == 404
    assert fleet.http.get(f"/api/v1/captures/{product}/{'b' * 64}", headers=fleet.operator).status_code == 404
    assert fleet.http.get(f"{address}?days=99", headers=fleet.operator).status_code == 400
    assert fleet.http.get(address).status_code == 401
