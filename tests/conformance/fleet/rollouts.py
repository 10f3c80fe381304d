"""Releases and rollouts as operators ask for them, and a site of devices that follows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from edgewise.contracts.rollout import State, decode_rollout, in_cohort
from edgewise.contracts.telemetry import encode_envelope
from tests.conformance.fleet.clients import Device, Fleet
from tests.conformance.fleet.envelopes import envelope
from tests.unit.bundle.bundles import archive, files

JSON = {"content-type": "application/json"}
POLICY = {"metrics": [{"metric": "latency_ms", "statistic": "p50", "margin": 0.2}], "report_s": 600}
STAGE = {"name": "first", "share": 0.5, "bake_s": 2, "looks": 2, "minimum_devices": 3}


def bundle(product: str, version: str) -> bytes:
    return archive(*files(product=product, version=version))


def publish(fleet: Fleet, product: str, version: str) -> dict[str, Any]:
    made = fleet.http.put(
        f"/api/v1/releases/{product}/{version}", content=bundle(product, version), headers=fleet.signer
    )
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


def draft(fleet: Fleet, product: str, stages: list[dict[str, Any]] | None = None) -> str:
    body = {
        "product": product,
        "from_version": "1.0.0",
        "to_version": "1.1.0",
        "stages": stages or [STAGE],
        "policy": POLICY,
        "holdback": 0.35,
    }
    made = fleet.http.post("/api/v1/rollouts", json=body, headers=fleet.operator)
    assert made.status_code == 201, made.text
    name: str = made.json()["rollout"]["id"]
    return name


def order(fleet: Fleet, name: str, command: str, **fields: object) -> int:
    made = fleet.http.post(f"/api/v1/rollouts/{name}/{command}", json=fields, headers=fleet.operator)
    return made.status_code


def kinds(fleet: Fleet, name: str) -> list[str]:
    found = fleet.http.get(f"/api/v1/rollouts/{name}/events", headers=fleet.operator).json()
    return [each["event"]["kind"] for each in found]


class Site:
    """A product with two releases and devices that have reported the old one."""

    def __init__(self, fleet: Fleet, product: str, count: int = 24) -> None:
        self.fleet, self.product = fleet, product
        self.old, self.new = (publish(fleet, product, version)["digest"] for version in ("1.0.0", "1.1.0"))
        with ThreadPoolExecutor(8) as pool:
            self.devices: list[Device] = list(pool.map(lambda _: fleet.device(product), range(count)))
        self.report(0, lambda _: self.old, lambda _: 1.0)

    def report(self, sequence: int, release: Any, scale: Any) -> None:
        def send(device: Device) -> int:
            sent = envelope(
                device.name,
                sequence,
                release=release(device),
                scale=scale(device),
                start_unix_ms=time.time_ns() // 10**6,
            )
            body = encode_envelope(sent)
            return self.fleet.http.post("/api/v1/telemetry", content=body, headers=JSON, auth=device).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(send, self.devices)) == {202}

    def run(self, name: str, slower: float, wait_s: float = 40) -> str:
        """Report as the rollout asks until it ends, and return how it ended."""
        until, sequence = time.monotonic() + wait_s, 1
        while time.monotonic() < until:
            kept = self.fleet.http.get(f"/api/v1/rollouts/{name}", headers=self.fleet.operator).json()
            rollout = decode_rollout(msgspec.json.encode(kept["rollout"]))
            if rollout.state is not State.STAGED:
                return str(kept["rollout"]["state"])
            canaries = {device.name for device in self.devices if in_cohort(rollout, device.name, frozenset())}
            self.report(
                sequence,
                lambda device: self.new if device.name in canaries else self.old,  # noqa: B023 - used at once
                lambda device: slower if device.name in canaries else 1.0,  # noqa: B023 - used at once
            )
            sequence += 1
            time.sleep(0.3)
        return str(self.fleet.http.get(f"/api/v1/rollouts/{name}/events", headers=self.fleet.operator).text[-2000:])
