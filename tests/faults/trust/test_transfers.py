"""What a server or a disk can do to a transfer, and a clock to what is believed; over real sockets."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path

import pytest

from edgewise.device.trust.pace import Guard, Pace
from edgewise.device.trust.transport import Transport, check_address
from edgewise.errors import (
    DigestError,
    ExpiredError,
    HttpStatusError,
    OutputError,
    SlowRetrievalError,
    TruncatedError,
    UnreachableError,
    UnsafeAddressError,
)
from tests.faults.trust.simulator import Repository, Server

NAME = "kws/kws-1.3.0.edgewise"
BUNDLE = bytes(range(256)) * 4096  # 1 MiB
HASTY = Pace(grace_s=0.3, bytes_per_s=10_000, idle_s=0.2, total_s=5)
Answer = Callable[[BaseHTTPRequestHandler, bytes], object]


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release(NAME, BUNDLE)
    with Server(repository).running() as running:
        yield running


def head(handler: BaseHTTPRequestHandler, length: int | None, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for key, value in headers.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()


def dripping(data: bytes, handler: BaseHTTPRequestHandler) -> None:
    """Send bytes one by one, each well within any wait, until the client has gone."""
    with contextlib.suppress(OSError):
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)


def drip_body(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    head(handler, len(data))
    dripping(data, handler)


def drip_headers(handler: BaseHTTPRequestHandler, _data: bytes) -> None:
    dripping(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000, handler)


def drip_chunk_size(handler: BaseHTTPRequestHandler, _data: bytes) -> None:
    head(handler, None, Transfer_Encoding="chunked")
    dripping(b"0" * 10_000, handler)


def stop_in_the_middle(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    head(handler, len(data))
    handler.wfile.write(data[:100])
    handler.wfile.flush()
    time.sleep(0.6)


def say_nothing(_handler: BaseHTTPRequestHandler, _data: bytes) -> None:
    time.sleep(0.6)


def honest(handler: BaseHTTPRequestHandler, data: bytes, *, most: int | None = None, ranges: bool = True) -> int:
    """Answer as a good server would, ranges included, but send at most `most` bytes; return where it began."""
    asked = handler.headers["Range"]
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges else 0
    span = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    head(handler, len(data) - start, 206 if start else 200, **span)
    handler.wfile.write(data[start:][:most])
    return start


@pytest.mark.parametrize("part", ["timestamp.json", "targets/"])
@pytest.mark.parametrize("answer", [drip_body, drip_headers, drip_chunk_size, stop_in_the_middle, say_nothing])
def test_slow_retrieval(server: Server, tmp_path: Path, answer: Answer, part: str) -> None:
    server.answers[part] = answer
    client = server.client(tmp_path / "metadata", pace=HASTY)
    with pytest.raises(SlowRetrievalError, match="bytes came in"):
        client.download(client.find(NAME), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    server.answers.clear()
    client.download(client.find(NAME), tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == BUNDLE


def test_a_transfer_ends_within_its_bound_however_its_bytes_are_spread() -> None:
    """A server that sends just enough to be waited for is done after grace + n / speed."""
    pace = Pace(grace_s=10, bytes_per_s=100, idle_s=5, total_s=1000)
    ticks = count()
    guard = Guard(pace, lambda: next(ticks) * 1.0)  # one second passes at each look
    received = 0

    def send() -> None:
        nonlocal received
        while True:
            assert 0 < guard.patience_s() <= pace.idle_s
            guard.count(40)
            received += 40

    with pytest.raises(SlowRetrievalError):
        send()
    assert next(ticks) <= pace.grace_s + received / pace.bytes_per_s + 3


def test_truncated_data_are_resumed_where_they_ended(server: Server, tmp_path: Path) -> None:
    starts = []
    server.answers["targets/"] = lambda handler, data: starts.append(honest(handler, data, most=400_000))
    client = server.client(tmp_path / "metadata")
    client.download(client.find(NAME), tmp_path / "bundle")
    assert starts == [0, 400_000, 800_000]
    assert (tmp_path / "bundle").read_bytes() == BUNDLE


def test_truncated_data_are_kept_for_the_next_start(server: Server, tmp_path: Path) -> None:
    sizes = iter([300_000, 0])
    starts = []
    server.answers["targets/"] = lambda handler, data: honest(handler, data, most=next(sizes))
    client = server.client(tmp_path / "metadata")
    with pytest.raises(TruncatedError):
        client.download(client.find(NAME), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    server.answers["targets/"] = lambda handler, data: starts.append(honest(handler, data))
    again = server.client(tmp_path / "metadata")
    again.download(again.find(NAME), tmp_path / "bundle")
    assert starts == [300_000]
    assert (tmp_path / "bundle").read_bytes() == BUNDLE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "metadata"]


def test_truncated_by_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    sizes = iter([300_000, None])
    server.answers["targets/"] = lambda handler, data: honest(handler, data, most=next(sizes), ranges=False)
    client = server.client(tmp_path / "metadata")
    client.download(client.find(NAME), tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == BUNDLE


def test_truncated_metadata_are_a_network_failure(server: Server, tmp_path: Path) -> None:
    server.answers["snapshot.json"] = lambda handler, data: honest(handler, data, most=100)
    with pytest.raises(TruncatedError):
        server.client(tmp_path).refresh()


def partial_of(server: Server, folder: Path) -> Path:
    return folder / f".{server.repository.targets.targets[NAME].hashes['sha256']}.partial"


@pytest.mark.parametrize("kept", [b"x" * 500_000, b"x" * len(BUNDLE), b"x" * (len(BUNDLE) + 1)])
def test_a_damaged_partial_file_costs_one_more_download(server: Server, tmp_path: Path, kept: bytes) -> None:
    partial_of(server, tmp_path).write_bytes(kept)
    server.answers["targets/"] = honest
    client = server.client(tmp_path / "metadata")
    client.download(client.find(NAME), tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == BUNDLE


def test_a_resumed_file_is_verified_whole(server: Server, tmp_path: Path) -> None:
    """A server that answers a range with other bytes never gets them installed."""
    partial_of(server, tmp_path).write_bytes(BUNDLE[:500_000])
    server.answers["targets/"] = lambda handler, data: honest(handler, b"y" * len(data))
    client = server.client(tmp_path / "metadata")
    with pytest.raises(DigestError):
        client.download(client.find(NAME), tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["metadata"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "https://127.0.0.1/", "gopher:x"])
def test_a_redirect_out_of_the_scheme_is_refused(server: Server, tmp_path: Path, location: str) -> None:
    server.answers["timestamp"] = lambda handler, _data: head(handler, 0, 302, Location=location)
    with pytest.raises(UnsafeAddressError):
        server.client(tmp_path).refresh()


def test_a_redirect_is_followed_without_the_private_headers(server: Server) -> None:
    seen = []

    def first(handler: BaseHTTPRequestHandler, _data: bytes) -> None:
        seen.append(handler.headers["Authorization"])
        head(handler, 0, 307, Location="/second")

    def second(handler: BaseHTTPRequestHandler, _data: bytes) -> None:
        seen.append(handler.headers["Authorization"])
        head(handler, 2)
        handler.wfile.write(b"ok")

    server.answers["second"] = second
    server.answers["first"] = first
    with Transport(HASTY, headers={"Authorization": "secret"}).get(f"{server.url}/first") as reply:
        assert b"".join(reply.chunks()) == b"ok"
    assert seen == ["secret", None]


def test_redirects_in_a_circle_end(server: Server, tmp_path: Path) -> None:
    server.answers["timestamp"] = lambda handler, _data: head(handler, 0, 302, Location=handler.path)
    with pytest.raises(UnreachableError, match="redirects"):
        server.client(tmp_path).refresh()


@pytest.mark.parametrize(
    "url", ["file:///x", "ftp://h/x", "http://", "x", "http://u:p@h/", "http://h:0/", "http://h:x/"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UnsafeAddressError):
        check_address(url)


def test_an_error_status_says_when_to_come_back(server: Server, tmp_path: Path) -> None:
    server.answers["timestamp"] = lambda handler, _data: head(handler, 0, 503, Retry_After="120")
    with pytest.raises(HttpStatusError) as caught:
        server.client(tmp_path).refresh()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 120.0)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with Server(Repository()).running() as gone:
        client = gone.client(tmp_path)
    with pytest.raises(UnreachableError):
        client.refresh()


def test_a_server_that_does_not_speak_http(server: Server, tmp_path: Path) -> None:
    server.answers["timestamp"] = lambda handler, _data: handler.wfile.write(b"\x16\x03\x01 hello\r\n\r\n")
    with pytest.raises(UnreachableError):
        server.client(tmp_path).refresh()


@contextlib.contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let no file of this process grow beyond `after` bytes, as on a disk that is full there."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_disk_full_in_a_download_leaves_what_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(b"the one before")
    client = server.client(tmp_path / "metadata")
    target = client.find(NAME)
    with full_disk(500_000), pytest.raises(OutputError):
        client.download(target, tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == b"the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "metadata"]
    client.download(target, tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == BUNDLE


@pytest.mark.parametrize("after", [0, 100, 400])
def test_disk_full_in_a_refresh_leaves_what_was_trusted(server: Server, tmp_path: Path, after: int) -> None:
    client = server.client(tmp_path)
    client.refresh()
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    server.repository.release("kws/more", b"more")
    with full_disk(after), pytest.raises(OutputError):
        server.client(tmp_path).refresh()
    kept = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name, data in kept.items() if not data} == {".lock"}
    assert set(kept) == set(before)
    server.client(tmp_path).refresh()
    assert server.client(tmp_path).find("kws/more").length == 4


def test_disk_without_room_is_said_before_a_byte_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.client(tmp_path / "metadata")
    target = client.find(NAME)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=len(BUNDLE) - 1))
    fetched = len(server.repository.requests)
    with pytest.raises(OutputError, match="are free"):
        client.download(target, tmp_path / "bundle")
    assert len(server.repository.requests) == fetched


def test_clock_set_back_brings_no_expired_metadata_back(server: Server, tmp_path: Path) -> None:
    """The device saw a time; metadata that had expired by then stay expired, whatever the clock says now."""
    repository = server.repository
    repository.timestamp.expires = repository.now + timedelta(days=60)
    repository.snapshot.expires = repository.root.expires = repository.targets.expires = repository.timestamp.expires
    repository.publish("root", "targets", "snapshot", "timestamp")
    server.client(tmp_path, now=repository.now + timedelta(days=40)).refresh()
    repository.timestamp.expires = repository.now + timedelta(days=10)
    repository.publish("timestamp")
    for now in (repository.now, repository.now - timedelta(days=20_000)):
        with pytest.raises(ExpiredError):
            server.client(tmp_path, now=now).refresh()
    repository.timestamp.expires = repository.now + timedelta(days=41)
    repository.publish("timestamp")
    server.client(tmp_path, now=repository.now - timedelta(days=20_000)).refresh()


def test_clock_set_forward_refuses_and_is_forgotten(server: Server, tmp_path: Path) -> None:
    """A clock that jumps to the end of the century must not keep the device out once it is right again."""
    with pytest.raises(ExpiredError):
        server.client(tmp_path, now=server.repository.now + timedelta(days=20_000)).refresh()
    server.client(tmp_path).refresh()


@pytest.mark.parametrize("damage", [b"", b"tomorrow", b"9999-99-99", b"\xff"])
def test_a_damaged_record_of_the_time_stops_nothing(server: Server, tmp_path: Path, damage: bytes) -> None:
    server.client(tmp_path).refresh()
    (tmp_path / "trusted-time").write_bytes(damage)
    server.client(tmp_path).refresh()


def test_an_unchanged_timestamp_costs_no_bytes(server: Server, tmp_path: Path) -> None:
    sent = []

    def tagged(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        tag = f'"{hash(data)}"'
        same = handler.headers["If-None-Match"] == tag
        sent.append(0 if same else len(data))
        head(handler, 0 if same else len(data), 304 if same else 200, ETag=tag)
        handler.wfile.write(b"" if same else data)

    server.answers["timestamp"] = tagged
    for _ in range(2):
        server.client(tmp_path).refresh()
    server.repository.publish("timestamp")
    server.client(tmp_path).refresh()
    (tmp_path / "timestamp.json").write_bytes(b"")  # no longer what the tag was for
    server.client(tmp_path).refresh()
    assert [bool(size) for size in sent] == [True, False, True, True]
