"""A release goes from a signer to the fleet, and stops itself where devices say so; over both pairs of servers."""

from __future__ import annotations

import time
from uuid import uuid4

import httpx
import pytest

from tests.conformance.fleet.clients import Fleet, bearer
from tests.conformance.fleet.rollouts import POLICY, STAGE, Site, bundle, draft, kinds, order, publish


@pytest.fixture
def product() -> str:
    """Return a product for this test alone."""
    return f"product-{uuid4().hex[:8]}"


class TestReleases:
    def test_a_release_is_sealed_by_a_trusted_key_and_never_changes(self, fleet: Fleet, product: str) -> None:
        view = publish(fleet, product, "1.0.0")
        again = fleet.http.put(
            f"/api/v1/releases/{product}/1.0.0", content=bundle(product, "1.0.0"), headers=fleet.signer
        )
        assert again.status_code == 409
        shown = fleet.http.get(f"/api/v1/releases/{product}/1.0.0", headers=fleet.operator).json()
        assert (shown["release"], shown["manifest"]["version"]) == (view, "1.0.0")
        card = fleet.http.get(f"/api/v1/releases/{product}/1.0.0/card.md", headers=fleet.operator)
        assert (card.status_code, card.text) == (200, "# kws\n")

    @pytest.mark.parametrize("harm", ["flip a byte", "cut it", "nothing", "another version"])
    def test_a_bundle_that_was_changed_is_refused(self, fleet: Fleet, product: str, harm: str) -> None:
        good = bundle(product, "1.0.0")
        bad = {
            "flip a byte": good[:300] + bytes([good[300] ^ 1]) + good[301:],
            "cut it": good[:-10],
            "nothing": b"",
            "another version": bundle(product, "1.0.1"),
        }[harm]
        made = fleet.http.put(f"/api/v1/releases/{product}/1.0.0", content=bad, headers=fleet.signer)
        assert made.status_code in {400, 422}, made.text
        assert fleet.http.get(f"/api/v1/releases/{product}/1.0.0", headers=fleet.operator).status_code == 404

    def test_an_operator_cannot_sign_and_a_signer_cannot_roll_out(self, fleet: Fleet, product: str) -> None:
        path = f"/api/v1/releases/{product}/1.0.0"
        for token in (fleet.operator, fleet.token("viewer")):
            assert fleet.http.put(path, content=bundle(product, "1.0.0"), headers=token).status_code == 403
        publish(fleet, product, "1.0.0")
        publish(fleet, product, "1.1.0")
        name = draft(fleet, product)
        for token in (fleet.signer, fleet.token("viewer")):
            path = f"/api/v1/rollouts/{name}/start"
            assert fleet.http.post(path, json={}, headers=token).status_code == 403
        assert fleet.http.get(f"/api/v1/rollouts/{name}", headers=bearer("none")).status_code == 401


class TestRollouts:
    def test_a_harmless_release_is_promoted_to_the_end(self, fleet: Fleet, product: str) -> None:
        site = Site(fleet, product)
        name = draft(fleet, product, [STAGE, STAGE | {"name": "rest", "share": 1.0}])
        assert order(fleet, name, "start") == 200
        assert site.run(name, slower=1.0) == "completed"
        found = kinds(fleet, name)
        assert [each for each in found if each != "looked"] == [
            "created",
            "started",
            "stage_started",
            "promoted",
            "stage_started",
            "promoted",
            "completed",
        ]

    def test_a_slower_release_is_rolled_back_and_told_why(self, fleet: Fleet, product: str) -> None:
        site = Site(fleet, product)
        name = draft(fleet, product)
        assert order(fleet, name, "start") == 200
        assert site.run(name, slower=2.0) == "rolled_back"
        last = fleet.http.get(f"/api/v1/rollouts/{name}", headers=fleet.operator).json()["rollout"]["last"]
        assert last["answer"] == "rollback"
        assert "latency_ms.p50" in last["reason"]
        lines = fleet.http.get("/api/v1/audit?newest=true&limit=50", headers=fleet.operator).json()
        assert "rollout.rolled_back" in {line["action"] for line in lines if line["subject"] == name}
        assert fleet.http.get("/api/v1/audit/chain", headers=fleet.operator).json()["whole"]

    def test_commands_follow_the_state_and_the_revision(self, fleet: Fleet, product: str) -> None:
        publish(fleet, product, "1.0.0")
        publish(fleet, product, "1.1.0")
        name, other = draft(fleet, product), draft(fleet, product)
        assert order(fleet, name, "pause") == 400
        assert order(fleet, name, "start", revision=7) == 409
        assert order(fleet, name, "start", revision=1) == 200
        assert order(fleet, other, "start") == 409
        assert [order(fleet, name, each) for each in ("pause", "resume", "abort", "resume")] == [200, 200, 200, 400]
        assert order(fleet, name, "explode") == 400
        assert order(fleet, "none", "start") == 404
        assert kinds(fleet, name)[:3] == ["created", "started", "stage_started"]

    def test_a_draft_that_cannot_be_is_refused(self, fleet: Fleet, product: str) -> None:
        publish(fleet, product, "1.0.0")
        body = {"product": product, "from_version": "1.0.0", "to_version": "1.0.0", "stages": [STAGE], "policy": POLICY}
        assert fleet.http.post("/api/v1/rollouts", json=body, headers=fleet.operator).status_code == 400
        missing = body | {"to_version": "9.0.0"}
        assert fleet.http.post("/api/v1/rollouts", json=missing, headers=fleet.operator).status_code == 404
        other = fleet.token("operator", "vision")
        assert fleet.http.post("/api/v1/rollouts", json=body, headers=other).status_code == 404

    def test_a_first_release_needs_no_gate_and_is_the_first_only_once(self, fleet: Fleet, product: str) -> None:
        def first(version: str, headers: dict[str, str] = fleet.operator) -> httpx.Response:
            body = {"product": product, "version": version}
            return fleet.http.post("/api/v1/rollouts/first", json=body, headers=headers)

        publish(fleet, product, "1.0.0")
        assert first("1.0.0", fleet.token("viewer")).status_code == 403
        assert first("1.0.0", fleet.token("operator", "vision")).status_code == 404
        assert first("9.0.0").status_code == 404
        made = first("1.0.0")
        assert made.status_code == 201, made.text
        assert made.json()["rollout"]["state"] == "completed"
        assert kinds(fleet, made.json()["rollout"]["id"]) == ["created", "started", "completed"]
        assert first("1.0.0").status_code == 409
        publish(fleet, product, "1.1.0")
        assert order(fleet, draft(fleet, product), "start") == 200

    def test_devices_that_stay_silent_never_promote(self, fleet: Fleet, product: str) -> None:
        Site(fleet, product, count=6)
        name = draft(fleet, product)
        assert order(fleet, name, "start") == 200
        until = time.monotonic() + 20
        while kinds(fleet, name).count("looked") < 2 and time.monotonic() < until:
            time.sleep(0.1)
        assert "promoted" not in kinds(fleet, name)
        assert order(fleet, name, "abort") == 200
