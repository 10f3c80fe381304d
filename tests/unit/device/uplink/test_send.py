"""What each answer of a server does to a spool, over real sockets."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewise.contracts.enrolment import read_header, to_sign
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Transport
from edgewise.device.uplink.collector import Collector, Reporter
from edgewise.device.uplink.destinations import FleetServer, OtlpCollector
from edgewise.device.uplink.send import MOST_AGE_MS, Progress, Uplink, report_until
from edgewise.device.uplink.spool import Spool
from tests.unit.device.uplink.devices import NOW_MS, RELEASE, Clock, window

KEY = Ed25519PrivateKey.generate()
HASTY = Pace(grace_s=1.0, bytes_per_s=10_000, idle_s=1.0, total_s=5)
Answer = tuple[int, bytes, dict[str, str]]


class Asked:
    """A server that answers as it is told, and what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Callable[[list[dict[str, Any]]], Answer] = taken
        self.date_ms: int | None = None
        self.url = ""


def taken(envelopes: list[dict[str, Any]]) -> Answer:
    return 202, b'{"envelopes":%d}' % len(envelopes), {}


def problem(status: int, kind: str, **headers: str) -> Answer:
    return status, json.dumps({"kind": kind, "found": "why", "required": "", "next_step": ""}).encode(), headers


@pytest.fixture
def asked() -> Iterator[Asked]:
    found = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.bodies.append(json.loads(body))
            found.headers.append(dict(self.headers) | {"body": body.decode()})
            found.paths.append(self.path)
            status, data, headers = found.answer(found.bodies[-1])
            self.send_response_only(status)
            if found.date_ms is not None:
                self.send_header("Date", formatdate(found.date_ms / 1000, usegmt=True))
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = Spool.open(tmp_path)
    yield found
    found.close()


def uplink(spool: Spool, asked: Asked, clock: Clock | None = None) -> Uplink:
    home = FleetServer(asked.url, device="device-1", sign=KEY.sign)
    dating = (clock or Clock()).dating
    return Uplink(spool, home, dating, boot="boot-1", transport=Transport(HASTY), uniform=lambda: 0.0)


def test_a_request_is_signed_for_what_it_carries(asked: Asked, spool: Spool) -> None:
    spool.put([window(0)])
    assert uplink(spool, asked).send() == Progress(sent=1, left=0)
    headers = asked.headers[0]
    signed = read_header(headers["Authorization"])
    assert signed is not None
    message = to_sign(
        device="device-1",
        method="POST",
        target="/api/v1/telemetry",
        body=headers["body"].encode(),
        timestamp_s=NOW_MS // 1000,
        nonce=signed.nonce,
    )
    KEY.public_key().verify(signed.signature, message)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>Welcome to the hotel</html>", {}),
        (202, b"<html>Welcome to the hotel</html>", {}),
        (202, b'{"envelopes":1}', {}),
        (404, b"no such page", {}),
        (400, b"bad gateway of another kind", {}),
        (413, b"too large, says a proxy", {}),
        (500, b"", {}),
        (307, b"", {"Location": "/elsewhere"}),
        problem(503, "BusyError"),
        problem(409, "ConflictError"),
        problem(401, "UnauthenticatedError"),
        (202, b"[" * 100_000, {}),
    ],
)
def test_what_is_not_the_servers_own_acknowledgement_forgets_nothing(
    asked: Asked, spool: Spool, answer: Answer
) -> None:
    spool.put([window(0), window(1)])
    asked.answer = lambda _envelopes: answer
    progress = uplink(spool, asked).send()
    assert (progress.sent, progress.dropped, progress.left, progress.wait_s) == (0, 0, 2, 300.0)
    assert progress.problem
    asked.answer = taken
    assert uplink(spool, asked).send().sent == 2


def test_each_failure_is_waited_for_longer_and_a_server_may_ask_for_more(asked: Asked, spool: Spool) -> None:
    spool.put([window(0)])
    asked.answer = lambda _envelopes: problem(503, "BusyError")
    mine = uplink(spool, asked)
    assert [mine.send().wait_s for _ in range(6)] == [300, 600, 1200, 2400, 4800, 4800]
    asked.answer = lambda _envelopes: problem(503, "BusyError", Retry_After="9000")
    assert mine.send().wait_s == 9000
    asked.answer = taken
    assert mine.send() == Progress(sent=1, left=0)
    spool.put([window(1)])
    asked.answer = lambda _envelopes: problem(503, "BusyError")
    assert mine.send().wait_s == 300


def test_the_one_that_is_refused_is_dropped_and_counted_and_the_others_are_sent(asked: Asked, spool: Spool) -> None:
    def without_the_third(envelopes: list[dict[str, Any]]) -> Answer:
        return problem(400, "TelemetryError") if any(each["sequence"] == 3 for each in envelopes) else taken(envelopes)

    asked.answer = without_the_third
    spool.put([window(number) for number in range(6)])
    progress = uplink(spool, asked).send()
    assert (progress.sent, progress.dropped, progress.left) == (5, 1, 0)
    assert "TelemetryError" in progress.problem
    assert [len(each) for each in asked.bodies] == [6, 1, 1, 1, 1, 1, 1]
    spool.put([window(9)])
    uplink(spool, asked).send()
    assert asked.bodies[-1][0]["lost_windows"] == 1


def test_batches_shrink_until_they_are_taken(asked: Asked, spool: Spool) -> None:
    def small(envelopes: list[dict[str, Any]]) -> Answer:
        if len(envelopes) > 2 or any(each["sequence"] == 7 for each in envelopes):
            return problem(413, "RequestError")
        return taken(envelopes)

    asked.answer = small
    spool.put([window(number) for number in range(8)])
    progress = uplink(spool, asked).send()
    assert (progress.sent, progress.dropped, progress.left) == (7, 1, 0)


def test_a_batch_holds_no_more_than_its_limits(asked: Asked, spool: Spool) -> None:
    spool.put([window(number) for number in range(250)])
    assert uplink(spool, asked).send().sent == 250
    assert [len(each) for each in asked.bodies] == [100, 100, 50]


def test_a_server_that_says_the_time_puts_a_wrong_clock_right(asked: Asked, spool: Spool) -> None:
    def only_signed_now(envelopes: list[dict[str, Any]]) -> Answer:
        signed = read_header(asked.headers[-1]["Authorization"])
        assert signed is not None
        return taken(envelopes) if abs(signed.timestamp_s - NOW_MS // 1000) < 300 else problem(401, "Unauthenticated")

    asked.answer, asked.date_ms = only_signed_now, NOW_MS
    clock = Clock(0)
    mine = uplink(spool, asked, clock)
    mine.store([window(0, start_ms=0)])
    assert mine.send().sent == 1
    assert asked.bodies[-1][0]["start_unix_ms"] == NOW_MS
    asked.date_ms = None
    mine.store([window(1, start_ms=clock.dating.now_ms())])
    assert mine.send().sent == 1
    assert asked.bodies[-1][0]["start_unix_ms"] == NOW_MS


def test_a_server_that_never_believes_is_not_asked_again_and_again(asked: Asked, spool: Spool) -> None:
    asked.answer, asked.date_ms = lambda _envelopes: problem(401, "UnauthenticatedError"), NOW_MS + 10**9
    spool.put([window(0)])
    assert uplink(spool, asked).send().left == 1
    assert len(asked.bodies) == 2


def test_age_counts_only_once_the_time_is_known(asked: Asked, spool: Spool) -> None:
    old = window(0, start_ms=NOW_MS - MOST_AGE_MS - 400_000)
    clock = Clock(NOW_MS + 10**12)  # far ahead: everything would be too old
    mine = uplink(spool, asked, clock)
    asked.answer = lambda _envelopes: problem(503, "BusyError")
    spool.put([old, window(1)])
    assert mine.send().dropped == 0
    asked.date_ms = NOW_MS
    mine.send()
    spool.not_received([1, 2])
    asked.answer = taken
    progress = mine.send()
    assert (progress.dropped, progress.sent) == (1, 1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "http://"])
def test_no_network_or_no_address_is_a_reason_and_no_exception(spool: Spool, url: str) -> None:
    spool.put([window(0)])
    home = FleetServer(url, device="device-1", sign=KEY.sign)
    progress = Uplink(spool, home, Clock().dating, boot="boot-1", transport=Transport(HASTY)).send()
    assert "next:" in progress.problem
    assert spool._connection.execute("SELECT SUM(claimed) FROM envelope").fetchone() == (0,)


def test_a_collector_gets_metrics_and_what_it_rejects_is_said(asked: Asked, spool: Spool) -> None:
    partial = b'{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"too many"}}'
    asked.answer = lambda _envelopes: (200, partial, {})
    spool.put([window(0)])
    collector = OtlpCollector(asked.url, headers=lambda _target, _body, _now_s: {"X-Key": "k"})
    progress = Uplink(spool, collector, Clock().dating, boot="boot-1", transport=Transport(HASTY)).send()
    assert (progress.sent, progress.left, progress.problem) == (1, 0, "3 points rejected: too many")
    assert (asked.paths, asked.headers[0]["X-Key"]) == (["/v1/metrics"], "k")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
def test_a_collector_that_answers_otherwise_gets_it_again(asked: Asked, spool: Spool, status: int) -> None:
    asked.answer = lambda _envelopes: (status, b'{"message":"no"}' if status != 400 else b"no JSON", {})
    spool.put([window(0)])
    collector = OtlpCollector(asked.url)
    progress = Uplink(spool, collector, Clock().dating, boot="boot-1", transport=Transport(HASTY)).send()
    assert (progress.sent, progress.left, progress.dropped) == (0, 1, 0)


def test_the_loop_reports_and_stores_the_last_window_when_it_is_told_to_stop(asked: Asked, spool: Spool) -> None:
    clock, stop, reported = Clock(), threading.Event(), threading.Event()
    collector = Collector(Reporter(device="device-1", device_class="pi5", boot="boot-1"), clock.dating)
    gathered: list[int] = []

    def gather() -> None:
        collector.running(RELEASE, "int8").count("requests")
        gathered.append(1)

    def seen(progress: Progress) -> None:
        if progress.sent:
            reported.set()

    arguments = {"gather": gather, "seen": seen, "window_s": 0.02}
    thread = threading.Thread(
        target=report_until, args=(stop, collector, uplink(spool, asked, clock)), kwargs=arguments
    )
    thread.start()
    assert reported.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    sent = sum(each["counters"]["requests"] for body in asked.bodies for each in body)
    assert sent + spool.held().envelopes == len(gathered)
