"""Who may join, who is let in, and who sees what; over both pairs of servers."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conformance.fleet.clients import Device, Fleet, bearer


class TestEnrolment:
    def test_a_device_joins_with_a_one_time_token_and_sees_itself(self, fleet: Fleet) -> None:
        device = fleet.device("kws", "pi5", ("canary", "site=berlin"))
        own = fleet.http.get(f"/api/v1/device/{device.name}", auth=device)
        assert own.status_code == 200, own.text
        assert (own.json()["product"], own.json()["labels"]) == ("kws", ["canary", "site=berlin"])

    def test_a_token_enrols_once(self, fleet: Fleet) -> None:
        token = fleet.enrolment()
        assert fleet.enrol(Device(), token).status_code == 201
        assert fleet.enrol(Device(), token).status_code == 401

    def test_of_many_with_one_token_at_once_one_joins(self, fleet: Fleet) -> None:
        token = fleet.enrolment()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: fleet.enrol(Device(), token).status_code, range(8)))
        assert sorted(found) == [201] + [401] * 7

    def test_a_name_is_taken_once_and_the_token_is_not_lost_for_it(self, fleet: Fleet) -> None:
        taken, token = fleet.device(), fleet.enrolment()
        assert fleet.enrol(Device(taken.name), token).status_code == 409
        assert fleet.enrol(Device(), token).status_code == 201

    @pytest.mark.parametrize("token", ["", "x" * 20, "ewe_0000000000000000_" + "a" * 43, "ewo_" + "é" * 20])
    def test_a_token_nobody_gave_enrols_nobody(self, fleet: Fleet, token: str) -> None:
        assert fleet.enrol(Device(), token).status_code in {400, 401}


class TestSignatures:
    def status(self, fleet: Fleet, device: Device, target: str | None = None) -> int:
        return fleet.http.get(target or f"/api/v1/device/{device.name}", auth=device).status_code

    def test_a_request_sent_twice_is_refused(self, fleet: Fleet) -> None:
        device = fleet.device()
        device.nonce = secrets.token_hex(16)
        assert [self.status(fleet, device) for _ in range(2)] == [200, 401]

    @pytest.mark.parametrize("skew_s", [-400, 400])
    def test_a_request_of_another_time_is_refused(self, fleet: Fleet, skew_s: int) -> None:
        device = fleet.device()
        device.skew_s = skew_s
        assert self.status(fleet, device) == 401

    def test_another_key_is_refused(self, fleet: Fleet) -> None:
        device = fleet.device()
        device.key = Device().key
        assert self.status(fleet, device) == 401

    def test_a_changed_path_query_or_method_is_refused(self, fleet: Fleet) -> None:
        device = fleet.device()
        request = fleet.http.build_request("GET", f"/api/v1/device/{device.name}?a=1")
        next(device.auth_flow(request))
        header = {"authorization": request.headers["authorization"]}
        for method, target in (("GET", "?a=2"), ("GET", ""), ("HEAD", "?a=1")):
            path = f"/api/v1/device/{device.name}{target}"
            assert fleet.http.request(method, path, headers=header).status_code in {401, 405}
        assert fleet.http.get(f"/api/v1/device/{device.name}?a=1", headers=header).status_code == 200

    def test_a_revoked_device_is_shut_out_at_once(self, fleet: Fleet) -> None:
        device = fleet.device()
        assert self.status(fleet, device) == 200
        assert fleet.http.delete(f"/api/v1/devices/{device.name}", headers=fleet.operator).status_code == 204
        assert self.status(fleet, device) == 401
        assert fleet.enrol(Device(device.name), fleet.enrolment()).status_code == 409


class TestTenancy:
    def test_a_device_cannot_read_another_device(self, fleet: Fleet) -> None:
        mine, other = fleet.device(), fleet.device()
        token = fleet.http.post(f"/api/v1/devices/{mine.name}/token", headers=fleet.operator).json()["token"]
        for way in ({"auth": mine}, {"headers": bearer(token)}):
            assert fleet.http.get(f"/api/v1/device/{mine.name}", **way).status_code == 200
            assert fleet.http.get(f"/api/v1/device/{other.name}", **way).status_code == 404
            assert fleet.http.get(f"/api/v1/devices/{other.name}", **way).status_code == 401
            assert fleet.http.get("/api/v1/devices", **way).status_code == 401

    def test_a_new_device_token_ends_the_old_one(self, fleet: Fleet) -> None:
        device = fleet.device()
        path = f"/api/v1/devices/{device.name}/token"
        old, new = (fleet.http.post(path, headers=fleet.operator).json()["token"] for _ in range(2))
        own = f"/api/v1/device/{device.name}"
        assert fleet.http.get(own, headers=bearer(old)).status_code == 401
        assert fleet.http.get(own, headers=bearer(new)).status_code == 200

    def test_a_token_of_one_product_sees_nothing_of_another(self, fleet: Fleet) -> None:
        device, other = fleet.device("vision"), fleet.device("kws")
        viewer, operator = fleet.token("viewer", "vision"), fleet.token("operator", "vision")
        seen = {each["product"] for each in fleet.http.get("/api/v1/devices?limit=1000", headers=viewer).json()}
        assert seen == {"vision"}
        assert fleet.http.get(f"/api/v1/devices/{device.name}", headers=viewer).status_code == 200
        assert fleet.http.get(f"/api/v1/devices/{other.name}", headers=viewer).status_code == 404
        assert fleet.http.delete(f"/api/v1/devices/{other.name}", headers=operator).status_code == 404
        lines = fleet.http.get("/api/v1/audit?limit=1000", headers=viewer).json()
        assert {line["product"] for line in lines} == {"vision"}
        more = {"role": "operator", "products": ["kws"]}
        assert fleet.http.post("/api/v1/tokens", json=more, headers=operator).status_code == 403

    def test_a_viewer_changes_nothing(self, fleet: Fleet) -> None:
        viewer, device = fleet.token("viewer"), fleet.device()
        refused: list[httpx.Response] = [
            fleet.http.post("/api/v1/tokens", json={"role": "viewer"}, headers=viewer),
            fleet.http.post("/api/v1/enrolments", json={"product": "kws", "device_class": "pi5"}, headers=viewer),
            fleet.http.put(f"/api/v1/devices/{device.name}/labels", json={"labels": []}, headers=viewer),
            fleet.http.delete(f"/api/v1/devices/{device.name}", headers=viewer),
        ]
        assert [each.status_code for each in refused] == [403] * 4

    def test_an_operator_makes_no_signer(self, fleet: Fleet) -> None:
        body = {"role": "signer"}
        assert fleet.http.post("/api/v1/tokens", json=body, headers=fleet.operator).status_code == 403

    def test_a_revoked_token_is_of_no_use(self, fleet: Fleet) -> None:
        made = fleet.http.post("/api/v1/tokens", json={"role": "viewer"}, headers=fleet.operator).json()
        assert fleet.http.get("/api/v1/devices", headers=bearer(made["token"])).status_code == 200
        assert fleet.http.delete(f"/api/v1/tokens/{made['id']}", headers=fleet.operator).status_code == 204
        assert fleet.http.get("/api/v1/devices", headers=bearer(made["token"])).status_code == 401


class TestAudit:
    def test_every_change_leaves_a_line_and_the_chain_is_whole(self, fleet: Fleet) -> None:
        device = fleet.device()
        fleet.http.put(f"/api/v1/devices/{device.name}/labels", json={"labels": ["canary"]}, headers=fleet.operator)
        lines = fleet.http.get("/api/v1/audit?newest=true&limit=3", headers=fleet.operator).json()
        assert [line["action"] for line in reversed(lines)] == ["enrolment.grant", "device.enrol", "device.label"]
        assert fleet.http.get("/api/v1/audit/chain", headers=fleet.operator).json() == {
            "whole": True,
            "broken_at": None,
        }

    def test_lines_of_many_at_once_stay_one_chain(self, fleet: Fleet) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: fleet.device(), range(16)))
        assert fleet.http.get("/api/v1/audit/chain", headers=fleet.operator).json()["whole"]

    def test_no_secret_is_in_the_log(self, fleet: Fleet) -> None:
        token = fleet.enrolment()
        secret = token.split("_", 2)[2]
        assert secret not in fleet.http.get("/api/v1/audit?newest=true", headers=fleet.operator).text
