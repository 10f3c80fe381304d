"""A killed server and a restarted database, in the middle of a rollout under load: nothing is lost, nothing twice."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path

import httpx
import msgspec
import pytest

from edgewise.contracts.telemetry import Envelope, encode_envelope
from edgewise.fleet import administer
from edgewise.fleet.api.telemetry import Point
from edgewise.fleet.ingest_totals import Totals, add, totals_of
from edgewise.keys.files import save_pair
from tests.conformance.fleet.backends import (
    Backend,
    free_port,
    postgresql_and_s3,
    restart_at_once,
    running_postgresql,
    sqlite_and_folder,
    start_server,
)
from tests.conformance.fleet.clients import Device, Fleet
from tests.conformance.fleet.envelopes import envelope
from tests.conformance.fleet.rollouts import STAGE, draft, order, publish
from tests.unit.bundle.bundles import PRIVATE

JSON = {"content-type": "application/json"}
DEVICES = 4
ENVELOPES = 20


class Running:
    """A fleet whose server can be killed and started again on the same port."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend, self.log, self.port = backend, folder / "server.jsonl", free_port()
        token = administer.first_token(backend.database).text
        signer = administer.make_token(backend.database, role="signer", products=(), note="", days=1).text
        self.keys = folder / "keys"
        self.keys.mkdir()
        save_pair(PRIVATE, self.keys / "seal.pem", passphrase=None)
        self.fleet = Fleet(f"http://127.0.0.1:{self.port}", token, signer)
        self.server = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server."""
        self.server = start_server(self.backend, self.port, "--tick", "0.05", "--trusted", str(self.keys), log=self.log)
        return self.server

    def kill(self) -> None:
        """Kill -9."""
        self.server.kill()
        self.server.wait()

    def close(self) -> None:
        """End it."""
        self.fleet.close()
        self.server.kill()
        self.server.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """Yield a fleet of its own over each pair of servers."""
    if request.param == "sqlite":
        backend = sqlite_and_folder(tmp_path)
    else:
        backend = postgresql_and_s3(request.getfixturevalue("postgresql"), request.getfixturevalue("s3"))
    fleet = Running(backend, tmp_path)
    yield fleet
    fleet.close()


def deliver(fleet: Fleet, device: Device, sent: Envelope, until: float) -> int:
    """Send an envelope until it is acknowledged, as a device does; return how many tries it took."""
    body, tries = encode_envelope(sent), 0
    while time.monotonic() < until:
        tries += 1
        try:
            answer = fleet.http.post("/api/v1/telemetry", content=body, headers=JSON, auth=device)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code == 202:
            return tries
        assert answer.status_code == 503, answer.text
        time.sleep(0.05)
    raise AssertionError("never acknowledged")


def under_load(fleet: Fleet, product: str, disturb: Callable[[], None]) -> tuple[list[Envelope], int]:
    """Let devices send while something is done to the servers; return what was sent and the number of tries."""
    devices = [fleet.device(product) for _ in range(DEVICES)]
    sent = {device.name: [envelope(device.name, number) for number in range(ENVELOPES)] for device in devices}
    until, began = time.monotonic() + 60, threading.Event()

    def report(device: Device) -> int:
        tries = 0
        for each in sent[device.name]:
            tries += deliver(fleet, device, each, until)
            began.set()
            time.sleep(0.02)
        return tries

    with ThreadPoolExecutor(DEVICES) as pool:
        running = [pool.submit(report, device) for device in devices]
        began.wait(30)
        disturb()
        tries = sum(each.result() for each in running)
    return [each for one in sent.values() for each in one], tries


def merged(fleet: Fleet, product: str, envelopes: int) -> Totals:
    """Return a product's totals, once nothing more is added to them."""
    until = time.monotonic() + 30
    whole = Totals()
    while whole.envelopes < envelopes and time.monotonic() < until:
        found = fleet.http.get(f"/api/v1/telemetry/{product}?start_ms=0", headers=fleet.operator)
        whole = reduce(add, (each.totals for each in msgspec.json.decode(found.content, type=list[Point])), Totals())
        time.sleep(0.1)
    return whole


def started_rollout(fleet: Fleet, product: str) -> str:
    publish(fleet, product, "1.0.0")
    publish(fleet, product, "1.1.0")
    name = draft(fleet, product, [STAGE | {"bake_s": 60, "looks": 60}])
    assert order(fleet, name, "start") == 200
    return name


def check(fleet: Fleet, product: str, name: str, sent: list[Envelope]) -> None:
    assert merged(fleet, product, len(sent)) == reduce(add, map(totals_of, sent), Totals())
    assert fleet.http.get("/api/v1/audit/chain", headers=fleet.operator).json() == {"whole": True, "broken_at": None}
    before = looks(fleet, name)
    until = time.monotonic() + 20
    while (after := looks(fleet, name)) == before and time.monotonic() < until:
        time.sleep(0.1)
    assert len(after) > len(before), "the rollout goes on"
    assert after == sorted(set(after)), "no look was taken twice"


def looks(fleet: Fleet, name: str) -> list[float]:
    found = fleet.http.get(f"/api/v1/rollouts/{name}", headers=fleet.operator)
    assert found.status_code == 200, found.text
    fractions: list[float] = found.json()["rollout"]["fractions"]
    return fractions


def test_kill_9_of_the_server_loses_and_duplicates_nothing(running: Running) -> None:
    name = started_rollout(running.fleet, "kws")

    def disturb() -> None:
        for _ in range(2):
            time.sleep(0.2)
            running.kill()
            running.start()

    sent, tries = under_load(running.fleet, "kws", disturb)
    assert tries > len(sent), "the kills came while envelopes were on their way"
    check(running.fleet, "kws", name, sent)


def test_a_database_restart_loses_and_duplicates_nothing(s3: str, tmp_path: Path) -> None:
    with running_postgresql() as database:
        running = Running(postgresql_and_s3(database.get_uri(), s3), tmp_path)
        name = started_rollout(running.fleet, "kws")

        def disturb() -> None:
            for _ in range(2):
                time.sleep(0.2)
                restart_at_once(database)

        try:
            sent, _ = under_load(running.fleet, "kws", disturb)
            check(running.fleet, "kws", name, sent)
        finally:
            running.close()


def test_two_servers_on_one_database_count_once(running: Running, tmp_path: Path) -> None:
    port = free_port()
    second = start_server(running.backend, port, "--tick", "0.05", log=tmp_path / "second.jsonl")
    other = Fleet(f"http://127.0.0.1:{port}", running.fleet.operator["authorization"].partition(" ")[2])
    try:
        device = running.fleet.device("kws")
        sent = [envelope(device.name, number) for number in range(40)]
        until = time.monotonic() + 30
        with ThreadPoolExecutor(8) as pool:
            ways = [(fleet, each) for each in sent for fleet in (running.fleet, other)]
            list(pool.map(lambda way: deliver(way[0], device, way[1], until), ways))
        assert merged(other, "kws", len(sent)) == reduce(add, map(totals_of, sent), Totals())
        assert other.http.get("/api/v1/audit/chain", headers=other.operator).json()["whole"]
    finally:
        other.close()
        second.terminate()
        second.wait()
