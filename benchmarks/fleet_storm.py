"""A reconnect storm: every device of a fleet comes back in the same second, and each keeps to the device's own rules.

A device opens a connection of its own for every request. It checks for an update and sends one envelope; where it is
told to come back later, or reaches nobody, it waits as the agent does (Retry-After or longer, longer each time, with
jitter). It never gives up, as the agent does not, and is done when both were answered:

    power         all have a bundle: first polls are spread over an interval (`device.agent.schedule.begun`)
    at once       none waits before its first try: the worst that rules cannot spread
    turned away   as the first, but the server lets so few envelopes wait that it answers many with 503 and Retry-After

The exit code is 1 after a status other than 200, 304, 202 and 503, a 503 without Retry-After, an envelope lost or kept
twice, a refused or broken connection except in the second storm (there the system's own limits break some, and those
devices try again), and where nobody was turned away in the third. A storm that is not over within an hour is an error.

    python benchmarks/fleet_storm.py                      # 20,000 devices, a few minutes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import checkout  # noqa: F401  (makes `tests` importable)
from edgewise.contracts.telemetry import encode_envelope
from edgewise.device.agent import schedule
from edgewise.device.uplink import send
from edgewise.device.waiting import wait_s
from edgewise.fleet import administer
from fleet_load import enrol, envelopes_of, etag_of, postgresql_and_folder, process, signed_request, spread
from machine import describe
from tests.conformance.fleet.backends import free_port, running_postgresql, start_server, started

INTERVAL_S, JITTER = 10, 1.0
"""What the server tells its devices, far shorter than 300 s so that the storm is over soon."""
MOST_S = 3600.0
Keys = dict[str, Ed25519PrivateKey]
CLIENTS = 4
FEW = 16
"""Envelopes that the third storm's server lets wait; others get 503."""
SMALL = """
import sys
from edgewise.fleet import administer, settings
database, store, *numbers = sys.argv[1:]
port, interval_s, few = map(int, numbers)
administer.serve(
    settings.Settings(database=database, store=store, port=port, poll_interval_s=interval_s, inbox_limit=few)
)
"""
SOURCES = 40
"""Addresses of this machine to connect from: one has too few ports for so many connections."""


@dataclass
class Seen:
    """What came of the requests."""

    answers: Counter[str] = field(default_factory=Counter)
    starts: Counter[int] = field(default_factory=Counter)
    """Requests begun in each second."""
    late_ms: list[float] = field(default_factory=list)
    tries: Counter[int] = field(default_factory=Counter)
    """Devices by the most tries that one of their two requests took."""
    errors: Counter[str] = field(default_factory=Counter)


@dataclass
class Device:
    """One of the fleet: its name, private key and envelope, and how long it waits before it comes back."""

    name: str
    key: bytes
    body: bytes
    first_s: float


def storm(port: int, check: bytes, devices: list[Device], began: float) -> Seen:
    """Let devices come back, in a process of their own: one has too few file descriptors for all."""
    return asyncio.run(_storm(port, check, devices, began))


async def _storm(port: int, check: bytes, devices: list[Device], began: float) -> Seen:
    seen, draw = Seen(), Random(began)  # noqa: S311 - spreads load, no secret

    async def come_back(number: int, device: Device) -> None:
        key = Ed25519PrivateKey.from_private_bytes(device.key)
        await asyncio.sleep(began + device.first_s - time.perf_counter())
        most = 0
        for what, wanted in (("poll", ("200", "304")), ("telemetry", ("202",))):
            failures = 0
            while True:
                request = check if what == "poll" else signed_request(key, device.name, device.body)
                status, after = await ask(number, what, request)
                if status in wanted:
                    break
                failures += 1
                await asyncio.sleep(pause_s(what, failures, after, draw.random()))
            most = max(most, failures + 1)
        seen.tries[most] += 1

    async def ask(number: int, what: str, request: bytes) -> tuple[str, float | None]:
        start = time.perf_counter()
        seen.starts[int(start - began)] += 1
        try:
            source = (f"127.0.1.{1 + number % SOURCES}", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            finally:
                writer.close()
        except (OSError, EOFError) as error:
            seen.errors[f"{what}: {type(error).__name__} {getattr(error, 'errno', '')}"] += 1
            return "", None
        status = head[9:12]
        seen.answers[f"{what} {status}"] += 1
        seen.late_ms.append(1000 * (time.perf_counter() - start))
        found = head.partition("retry-after: ")[2].partition("\r")[0]
        if status == "503" and not found:
            seen.errors[f"{what}: 503 without Retry-After"] += 1
        elif status not in {"200", "304", "202", "503"}:
            seen.errors[f"{what}: {status}"] += 1
        return status, float(found) if found else None

    async with asyncio.timeout(MOST_S):
        await asyncio.gather(*(come_back(number, each) for number, each in enumerate(devices)))
    return seen


def pause_s(what: str, failures: int, after: float | None, uniform: float) -> float:
    """Return how long the agent's schedule or its uplink waits after so many failures (`schedule.polled`, `Uplink`)."""
    if what == "poll":
        return wait_s(failures, after, interval_s=INTERVAL_S, jitter=JITTER, uniform=uniform)
    doublings = min(failures - 1, send.MOST_DOUBLINGS)
    return wait_s(doublings, after, interval_s=INTERVAL_S, jitter=send.JITTER, uniform=uniform)


def together(found: list[Seen]) -> Seen:
    """Return what came of all requests."""
    whole = Seen()
    for each in found:
        whole.answers += each.answers
        whole.starts += each.starts
        whole.tries += each.tries
        whole.errors += each.errors
        whole.late_ms += each.late_ms
    return whole


async def measure(storms: Mapping[str, Callable[[], float]], keys: Keys, port: int, database: str) -> bool:
    """Run the storms, each given by how long (seconds) a device waits at first; return whether nothing failed."""
    connection = await asyncpg.connect(database)
    raw = {name: key.private_bytes_raw() for name, key in keys.items()}
    etag = await etag_of(port)
    check = f"GET /repository/metadata/timestamp.json HTTP/1.1\r\nHost: x\r\nIf-None-Match: {etag}\r\n\r\n".encode()
    fine = True
    with ProcessPoolExecutor(CLIENTS) as pool:
        for name, first_s in storms.items():
            had = await connection.fetchval("SELECT count(*) FROM envelope")
            made = envelopes_of(keys, len(keys), boot=name.replace(" ", "-"))
            fleet = [Device(each.device, raw[each.device], encode_envelope(each), first_s()) for each in made]
            began = time.perf_counter() + 5  # by then all processes are ready; the clock is the same in all of them
            parts = [pool.submit(storm, port, check, fleet[first::CLIENTS], began) for first in range(CLIENTS)]
            seen = together([await asyncio.wrap_future(each) for each in parts])
            took = time.perf_counter() - began
            lost = len(fleet) + had - await connection.fetchval("SELECT count(*) FROM envelope")
            print(f"{name}: {len(fleet)} devices done in {took:.0f} s; {dict(seen.answers)}; {spread(seen.late_ms)}")
            print(
                f"  most in a second {max(seen.starts.values())}; devices by tries {dict(sorted(seen.tries.items()))}"
            )
            print(f"  errors {dict(seen.errors)}; envelopes lost {lost}", flush=True)
            broken = sum(times for what, times in seen.errors.items() if "Error" in what)
            fine = fine and lost == 0 and sum(seen.errors.values()) == (broken if name == "at once" else 0)
            fine = fine and sum(seen.tries.values()) == len(fleet)
            fine = fine and (name != "turned away" or seen.answers["telemetry 503"] > 0)
    await connection.close()
    return fine


async def enrolled(database: str, count: int) -> Keys:
    """Enrol devices and return their keys."""
    connection = await asyncpg.connect(database)
    try:
        return await enrol(connection, count)
    finally:
        await connection.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=FEW, help="envelopes that may wait in the third storm")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(describe()))
    draw = Random(2)  # noqa: S311 - spreads load, no secret
    pace = schedule.Pace(interval_s=INTERVAL_S, jitter=JITTER)

    def spread_out() -> float:
        return schedule.begun(pace, now=0.0, uniform=draw.random(), installed=True).poll_s

    with tempfile.TemporaryDirectory() as folder, running_postgresql() as database:
        backend = postgresql_and_folder(database.get_uri(), Path(folder))
        administer.migrate(backend.database)
        metadata = Path(folder, "store", "repository", "metadata")
        metadata.mkdir(parents=True)
        (metadata / "timestamp.json").write_bytes(secrets.token_bytes(800))
        keys = asyncio.run(enrolled(backend.database, options.devices))
        port, log = free_port(), Path(folder, "log")
        with process(start_server(backend, port, "--poll-interval", str(INTERVAL_S), log=log)):
            fine = asyncio.run(measure({"power": spread_out, "at once": lambda: 0.0}, keys, port, backend.database))
        port = free_port()
        numbers = [str(each) for each in (port, INTERVAL_S, options.few)]
        command = [sys.executable, "-c", SMALL, backend.database, backend.store, *numbers]
        with process(started(command, port, log=log)):
            fine = asyncio.run(measure({"turned away": spread_out}, keys, port, backend.database)) and fine
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
