"""A client of hawkBit's DDI pulls a bundle, as SWUpdate does; over both pairs of servers."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

import pytest

from tests.conformance.fleet.clients import Device, Fleet
from tests.conformance.fleet.rollouts import STAGE, bundle, draft, order, publish


class Client:
    """What a DDI client is configured with: a server, its own name and a token."""

    def __init__(self, fleet: Fleet, device: Device) -> None:
        self.http, self.name = fleet.http, device.name
        token = fleet.http.post(f"/api/v1/devices/{device.name}/token", headers=fleet.operator).json()["token"]
        self.headers = {"authorization": f"TargetToken {token}"}

    def poll(self) -> dict[str, Any]:
        found = self.http.get(f"/default/controller/v1/{self.name}", headers=self.headers)
        assert found.status_code == 200, found.text
        assert found.json()["config"]["polling"]["sleep"] == "00:05:00"
        links: dict[str, Any] = found.json()["_links"]
        return links

    def follow(self, link: dict[str, str], **headers: str) -> Any:
        return self.http.get(link["href"], headers=self.headers | headers)

    def tell(self, link: dict[str, str], execution: str, finished: str = "none") -> int:
        body = {"id": "1", "status": {"execution": execution, "result": {"finished": finished}, "details": ["a line"]}}
        return self.http.post(f"{link['href']}/feedback", json=body, headers=self.headers).status_code


@pytest.fixture
def product(fleet: Fleet) -> str:
    name = f"product-{uuid4().hex[:8]}"
    publish(fleet, name, "1.0.0")
    publish(fleet, name, "1.1.0")
    return name


def rolled_out(fleet: Fleet, product: str) -> tuple[Client, str]:
    """Return a client that a rollout holds by its label."""
    client = Client(fleet, fleet.device(product, labels=("canary",)))
    assert set(client.poll()) == {"configData"}
    stage = {key: value for key, value in STAGE.items() if key != "share"}
    name = draft(fleet, product, [stage | {"label": "canary", "bake_s": 600}])
    assert order(fleet, name, "start") == 200
    return client, name


class TestDdi:
    def test_a_client_pulls_the_bundle_and_reports_success(self, fleet: Fleet, product: str) -> None:
        client, _ = rolled_out(fleet, product)
        link = client.poll()["deploymentBase"]
        deployment = client.follow(link).json()["deployment"]
        artifact = deployment["chunks"][0]["artifacts"][0]
        whole = client.follow(artifact["_links"]["download"])
        assert whole.content == bundle(product, "1.1.0")
        assert (len(whole.content), hashlib.sha256(whole.content).hexdigest()) == (
            artifact["size"],
            artifact["hashes"]["sha256"],
        )
        rest = client.follow(artifact["_links"]["download"], range="bytes=100-")
        assert (rest.status_code, rest.content) == (206, whole.content[100:])
        assert client.tell(link, "proceeding") == 200
        assert client.poll()["deploymentBase"] == link
        assert client.tell(link, "closed", "success") == 200
        assert set(client.poll()) == {"configData"}
        seen = fleet.http.get(f"/api/v1/devices/{client.name}", headers=fleet.operator).json()
        digests = {
            each["version"]: each["digest"]
            for each in fleet.http.get(f"/api/v1/releases?product={product}", headers=fleet.operator).json()
        }
        assert seen["release"] == digests["1.1.0"]

    def test_a_failure_is_not_asked_for_again(self, fleet: Fleet, product: str) -> None:
        client, _ = rolled_out(fleet, product)
        assert client.tell(client.poll()["deploymentBase"], "closed", "failure") == 200
        assert set(client.poll()) == {"configData"}

    def test_what_was_aborted_is_called_off(self, fleet: Fleet, product: str) -> None:
        client, name = rolled_out(fleet, product)
        client.poll()
        assert order(fleet, name, "roll_back") == 200
        link = client.poll()["cancelAction"]
        assert client.follow(link).json()["cancelAction"]["stopId"] == client.follow(link).json()["id"]
        assert client.tell(link, "closed", "success") == 200
        assert set(client.poll()) == {"configData"}

    def test_nobody_sees_what_is_anothers(self, fleet: Fleet, product: str) -> None:
        client, _ = rolled_out(fleet, product)
        other = Client(fleet, fleet.device(product))
        link = client.poll()["deploymentBase"]
        assert fleet.http.get(link["href"], headers=other.headers).status_code == 401
        assert fleet.http.get(link["href"]).status_code == 401
        mine = link["href"].replace(client.name, other.name)
        assert fleet.http.get(mine, headers=other.headers).status_code == 404
