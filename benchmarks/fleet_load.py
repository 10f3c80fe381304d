"""Load on one fleet server: update checks beside an empty handler, telemetry beside a bare insert, in one run.

Rates are of a saturated server, in rounds that take turns. Latencies are of an open loop: requests are due at times
that do not depend on the answers, and the clock of each starts when it was due, so that waiting in line counts.
The client runs on the same machine and takes its share of it: compare the ratios, not the rates.

    python benchmarks/fleet_load.py                      # 100,000 devices, about a minute
    python benchmarks/fleet_load.py --devices 2000 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import checkout  # noqa: F401  (makes `tests` importable)
from edgewise.contracts.enrolment import Signed, to_sign, write_header
from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.telemetry import Envelope, encode_envelope
from edgewise.fleet import administer
from edgewise.fleet.store.telemetry import INSERT_POSTGRESQL
from machine import describe
from tests.conformance.fleet.backends import (
    Backend,
    free_port,
    postgresql_and_s3,
    running_postgresql,
    start_server,
)

CONNECTIONS = 32
SENDERS = 512
"""Devices that send telemetry at the same time: each waits until its envelope is durable."""
ROUNDS = 3
TABLE = "CREATE TABLE bare (LIKE envelope INCLUDING ALL)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=100_000, help="enrolled devices, each with a key of its own")
    parser.add_argument("--seconds", type=float, default=9.0, help="of each measurement")
    parser.add_argument("--envelopes", type=int, default=20_000, help="of the telemetry measurement")
    parser.add_argument("--empty", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.empty:
        asyncio.run(_serve_empty(options.empty))
        return
    print(json.dumps(describe()))
    with tempfile.TemporaryDirectory() as folder, running_postgresql() as database:
        backend = postgresql_and_folder(database.get_uri(), Path(folder))
        administer.migrate(backend.database)
        metadata = Path(folder, "store", "repository", "metadata")
        metadata.mkdir(parents=True)
        (metadata / "timestamp.json").write_bytes(secrets.token_bytes(800))
        port, empty_port, log = free_port(), free_port(), Path(folder, "log")
        # A long tick: the server's own work would be counted among the queries of the polls.
        keys = asyncio.run(_enrolled(backend, options.devices))
        with process(start_server(backend, port, "--tick", "60", log=log)), _empty(empty_port):
            asyncio.run(_polls(options, port, empty_port))
        with process(start_server(backend, port, log=log)):
            asyncio.run(_telemetry(options, backend, port, keys))


def postgresql_and_folder(server: str, folder: Path) -> Backend:
    """Return an empty database and a folder."""
    made = postgresql_and_s3(server, "s3://unused")
    return Backend(name=made.name, database=made.database, store=str(folder / "store"))


async def _polls(options: argparse.Namespace, port: int, empty_port: int) -> None:
    etag = await etag_of(port)
    check = f"GET /repository/metadata/timestamp.json HTTP/1.1\r\nHost: x\r\nIf-None-Match: {etag}\r\n\r\n".encode()
    nothing = b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"
    rates: dict[str, list[float]] = {"empty handler": [], "update check": []}
    await asyncio.sleep(2)  # the server's work of the start is done
    before = await _statements(port)
    for _ in range(ROUNDS):
        rates["empty handler"].append(await _saturate(empty_port, nothing, options.seconds / ROUNDS))
        rates["update check"].append(await _saturate(port, check, options.seconds / ROUNDS))
    empty, ours = (statistics.median(rate) for rate in rates.values())
    pace = 0.5 * min(empty, ours)
    for name, at, request, status in (
        ("empty handler", empty_port, nothing, "204"),
        ("update check", port, check, "304"),
    ):
        late = await _open_loop(at, [request] * int(pace * options.seconds), pace, status)
        print(f"{name:<16} {statistics.median(rates[name]):8.0f} /s   at {pace:.0f}/s: {spread(late)}")
    queries = await _statements(port) - before
    print(f"update check / empty handler: {ours / empty:.2f} (required 0.7), statements to the database: {queries}")


async def _statements(port: int) -> int:
    """Return how many statements the server has sent to its database."""
    connection = await Connection().open(port)
    text = (await connection.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", whole=True)).decode()
    connection.close()
    found = re.search(r"^edgewise_database_statements_total (\S+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError("the server does not count its statements")
    return int(float(found[1]))


async def _enrolled(backend: Backend, count: int) -> dict[str, Ed25519PrivateKey]:
    connection = await asyncpg.connect(backend.database)
    keys = await enrol(connection, count)
    enrolled = await connection.fetchval("SELECT count(*) FROM device")
    print(f"{enrolled} devices enrolled")
    await connection.close()
    return keys


async def _telemetry(
    options: argparse.Namespace, backend: Backend, port: int, keys: dict[str, Ed25519PrivateKey]
) -> None:
    connection = await asyncpg.connect(backend.database)
    envelopes = envelopes_of(keys, options.envelopes)
    await connection.execute(TABLE)
    bare = await _bare(connection, envelopes)
    requests = [signed_request(keys[each.device], each.device, encode_envelope(each)) for each in envelopes]
    half = len(requests) // 2
    began = time.perf_counter()
    await _drain(port, requests[:half])
    rate = half / (time.perf_counter() - began)
    late = await _open_loop(port, requests[half:], 0.5 * rate, "202")
    kept = await connection.fetchval("SELECT count(*) FROM envelope")
    print(f"telemetry        {rate:8.0f} envelopes/s   at {0.5 * rate:.0f}/s: {spread(late)}")
    print(f"bare insert      {bare:8.0f} rows/s   telemetry / bare: {rate / bare:.2f} (required 2000 /s or 0.5)")
    print(f"envelopes kept: {kept} of {len(requests)}")
    await connection.close()


async def enrol(connection: asyncpg.Connection, count: int) -> dict[str, Ed25519PrivateKey]:
    """Put devices into the database, each with a key of its own."""
    keys = {f"device-{number:06}": Ed25519PrivateKey.generate() for number in range(count)}
    rows = [(name, "bench", "pi5", "[]", key.public_key().public_bytes_raw(), 0) for name, key in keys.items()]
    columns = ["id", "product", "device_class", "labels", "public_key", "enrolled_ms"]
    await connection.copy_records_to_table("device", records=rows, columns=columns)
    return keys


def envelopes_of(keys: dict[str, Ed25519PrivateKey], count: int, *, boot: str = "boot") -> list[Envelope]:
    """Return envelopes of different devices, as long as there are enough."""
    draw, names, now = Random(0), list(keys), time.time_ns() // 10**6  # noqa: S311 - latencies, no secret
    shapes = [histogram_of([draw.lognormvariate(1, 0.3) for _ in range(300)]) for _ in range(50)]
    return [
        Envelope(
            device=names[number % len(names)],
            boot=boot,
            sequence=number,
            start_unix_ms=now - 60_000,
            end_unix_ms=now,
            device_class="pi5",
            release="a" * 64,
            variant="int8",
            histograms={"latency_ms": draw.choice(shapes)},
            counters={"requests": 300},
        )
        for number in range(count)
    ]


async def _bare(connection: asyncpg.Connection, envelopes: Sequence[Envelope]) -> float:
    """Return rows/s of the same rows, in batches as large as the senders allow, in one statement each."""
    statement = INSERT_POSTGRESQL.replace("envelope", "bare")
    rows = [(each.device, each.boot, each.sequence, "bench", 0, encode_envelope(each)) for each in envelopes]
    began = time.perf_counter()
    for first in range(0, len(rows), SENDERS):
        await connection.execute(statement, *map(list, zip(*rows[first : first + SENDERS], strict=True)))
    return len(rows) / (time.perf_counter() - began)


def signed_request(key: Ed25519PrivateKey, device: str, body: bytes) -> bytes:
    """Return a request that carries an envelope."""
    signed = Signed(device=device, timestamp_s=int(time.time()), nonce=secrets.token_hex(16), signature=b"")
    target = "/api/v1/telemetry"
    message = to_sign(
        device=device, method="POST", target=target, body=body, timestamp_s=signed.timestamp_s, nonce=signed.nonce
    )
    header = write_header(
        Signed(device=device, timestamp_s=signed.timestamp_s, nonce=signed.nonce, signature=key.sign(message))
    )
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Authorization: {header}\r\n\r\n".encode() + body


class Connection:
    """One keep-alive connection."""

    async def open(self, port: int) -> Connection:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, request: bytes, *, whole: bool = False) -> bytes:
        """Send a request and return the head of its answer, or all of it."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        at = head.find(b"content-length: ")
        if at >= 0 and (length := int(head[at + 16 : head.index(b"\r", at)])):
            body = await self._reader.readexactly(length)
            return head + body if whole else head
        return head

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def _saturate(port: int, request: bytes, seconds: float) -> float:
    """Return requests/s with as many under way as there are connections."""
    connections = [await Connection().open(port) for _ in range(CONNECTIONS)]
    until, done = time.perf_counter() + seconds, 0

    async def ask(connection: Connection) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await connection.ask(request)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(ask(each) for each in connections))
    took = time.perf_counter() - began
    for each in connections:
        each.close()
    return done / took


async def _drain(port: int, requests: Sequence[bytes]) -> None:
    """Send every request once, as fast as answers come."""
    left = iter(requests)

    async def work() -> None:
        connection = await Connection().open(port)
        for request in left:
            head = await connection.ask(request)
            if b" 202 " not in head:
                raise RuntimeError(head.decode())
        connection.close()

    await asyncio.gather(*(work() for _ in range(SENDERS)))


async def _open_loop(port: int, requests: Sequence[bytes], per_s: float, status: str) -> list[float]:
    """Send requests when they are due and return milliseconds from then to the answer."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(8 * CONNECTIONS):
        free.put_nowait(await Connection().open(port))
    late: list[float] = []

    async def ask(request: bytes, due: float) -> None:
        connection = await free.get()
        head = await connection.ask(request)
        late.append(1000 * (time.perf_counter() - due))
        free.put_nowait(connection)
        if status.encode() not in head[:16]:
            raise RuntimeError(head.decode())

    began = time.perf_counter()
    tasks = []
    for number, request in enumerate(requests):
        due = began + number / per_s
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(ask(request, due)))
        if number % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait().close()
    return late


def spread(late: Sequence[float]) -> str:
    """Return quantiles of latencies in words."""
    cuts = statistics.quantiles(late, n=100)
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, most {max(late):.1f} ms"


async def etag_of(port: int) -> str:
    """Return what a device that knows the newest metadata asks with."""
    connection = await Connection().open(port)
    head = await connection.ask(b"GET /repository/metadata/timestamp.json HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.close()
    return next(line[6:] for line in head.decode().split("\r\n") if line.lower().startswith("etag: "))


async def _serve_empty(port: int) -> None:
    from granian.constants import HTTPModes, Interfaces  # noqa: PLC0415 - only in the other process
    from granian.server.embed import Server  # noqa: PLC0415
    from litestar import Litestar, get  # noqa: PLC0415

    @get("/empty", status_code=204)
    async def empty() -> None:
        return None

    server = Server(
        Litestar([empty], openapi_config=None),
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,  # as ours
        log_enabled=False,
    )
    await server.serve()


@contextlib.contextmanager
def _empty(port: int) -> Iterator[None]:
    with process(subprocess.Popen([sys.executable, __file__, "--empty", str(port)])):
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                break
        yield


@contextlib.contextmanager
def process(started: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process with the block."""
    try:
        yield
    finally:
        started.terminate()
        started.wait()


if __name__ == "__main__":
    main()
