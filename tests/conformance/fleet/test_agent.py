"""The whole way of a device: it joins, takes the first release, answers, follows a rollout and its end."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.target import RuntimeName
from edgewise.errors import HttpStatusError
from edgewise.fleet import administer
from edgewise.forge.measure.agent_lab import AgentLab
from edgewise.keys.files import save_pair
from edgewise.runtimes.timing import Plan
from tests.conformance.fleet.agents import agent, awaited, running
from tests.conformance.fleet.backends import free_port, sqlite_and_folder, start_server
from tests.conformance.fleet.clients import Fleet
from tests.conformance.fleet.rollouts import draft, order
from tests.conformance.fleet.test_director import repository
from tests.faults.device.bundles import real, sample
from tests.unit.bundle.bundles import PRIVATE
from tests.unit.runtimes.models import conv_relu_add

PRODUCT = "directed"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Yield a server that publishes to devices, with two releases that run."""
    bundles = {version: real(version, product=PRODUCT, seed=seed) for seed, version in enumerate(("1.0.0", "1.1.0"))}
    backend = sqlite_and_folder(tmp_path)
    repository(backend, tmp_path, bundles)
    (tmp_path / "keys").mkdir()
    save_pair(PRIVATE, tmp_path / "keys" / "seal.pem", passphrase=None)
    tokens = [
        administer.make_token(backend.database, role=role, products=(), note="", days=1).text
        for role in ("operator", "signer")
    ]
    port = free_port()
    options = ("--tick", "0.1", "--poll-interval", "1", "--trusted", str(tmp_path / "keys"))
    online = ("--online", str(tmp_path / "online"), "--trusted-root", str(tmp_path / "root.json"))
    server = start_server(backend, port, *options, *online, log=tmp_path / "server.jsonl")
    running_fleet = Fleet(f"http://127.0.0.1:{port}", *tokens)
    try:
        for version, data in bundles.items():
            path = f"/api/v1/releases/{PRODUCT}/{version}"
            assert running_fleet.http.put(path, content=data, headers=running_fleet.signer).status_code == 201
        first = {"product": PRODUCT, "version": "1.0.0"}
        made = running_fleet.http.post("/api/v1/rollouts/first", json=first, headers=running_fleet.operator)
        assert made.status_code == 201
        yield running_fleet
    finally:
        running_fleet.close()
        server.terminate()
        server.wait()


def test_a_device_joins_updates_answers_and_goes_back(fleet: Fleet, tmp_path: Path) -> None:
    folder, root = tmp_path / "device", ("--root", tmp_path / "root.json")
    enroll = ("enroll", "--folder", folder, "--server", fleet.url, "--device", "gateway-17", *root)
    refused = agent(*enroll, "--json", token="ewe_0000000000000000_" + "a" * 43)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["kind"] == "AgentError"
    assert not folder.exists()
    token = fleet.enrolment(PRODUCT, "pi5", ("canary",))
    done = agent(*enroll, token=token)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((folder / "enrolment" / "key.pem").stat().st_mode) == 0o600
    assert "enrolled already" in agent(*enroll, token=token).stderr

    (folder / "agent.toml").write_text("report_s = 1.0\n[capture]\nreport_s = 1.0\n")
    with running(folder):
        found = awaited(folder, lambda each: each.get("release") == "1.0.0")
        first = found["manifest_digest"]
        assert (found["release"], found["running"]) == ("1.0.0", True), (folder / "log.jsonl").read_text()
        np.savez(tmp_path / "sample.npz", x=sample())
        answered = agent("infer", tmp_path / "sample.npz", "--folder", folder)
        assert answered.returncode == 0, answered.stderr + answered.stdout
        assert json.loads(answered.stdout)["outcome"]["kind"] == "local"

        stage = {"name": "canary", "label": "canary", "bake_s": 600, "looks": 2, "minimum_devices": 1}
        name = draft(fleet, PRODUCT, [stage])
        for command, version in (("start", "1.1.0"), ("roll_back", "1.0.0")):
            assert order(fleet, name, command) == 200
            found = awaited(folder, lambda each, version=version: each.get("release") == version)  # type: ignore[misc]
            assert found["release"] == version, (folder / "log.jsonl").read_text()[-3000:]
        assert "another process" in agent("run", "--folder", folder).stderr
    assert found["outcomes"] == {"local": 1}
    told = json.loads(agent("status", "--json", "--folder", folder).stdout)
    assert (told["running"], told["reporting"]["problem"]) == (False, "")
    assert reported(fleet) == 1, told["reporting"]
    captured = fleet.http.get(f"/api/v1/captures/{PRODUCT}/{first}", headers=fleet.operator).json()
    assert {sum(each["counts"]) for name, each in captured["sketches"].items() if name.endswith("high")} == {1}


def reported(fleet: Fleet, wait_s: float = 20) -> int:
    """Return how many inferences the server has merged, as soon as there are any."""
    until = time.monotonic() + wait_s
    while True:
        points = fleet.http.get(f"/api/v1/telemetry/{PRODUCT}", headers=fleet.operator).json()
        count = sum(each["totals"]["counters"].get("requests", 0) for each in points)
        if count or time.monotonic() > until:
            return int(count)
        time.sleep(0.1)


def test_a_workstation_measures_on_an_agent_that_allows_it(fleet: Fleet, tmp_path: Path) -> None:
    folder, port = tmp_path / "device", free_port()
    done = agent(
        *("enroll", "--folder", folder, "--server", fleet.url, "--device", "lab-1", "--root", tmp_path / "root.json"),
        token=fleet.enrolment(PRODUCT, "pi5", ()),
    )
    assert done.returncode == 0, done.stderr
    secret = hashlib.sha256(b"a-lab-token").hexdigest()
    (folder / "agent.toml").write_text(f'listen = "127.0.0.1:{port}"\n[lab]\ntoken_sha256 = "{secret}"\n')
    with running(folder):
        assert awaited(folder, lambda each: each.get("running") is True)["running"]
        device = AgentLab(f"http://127.0.0.1:{port}", "a-lab-token")
        model = conv_relu_add().SerializeToString()
        feeds = [{"x": np.ones((1, 3, 16, 16), np.float32)}]
        models = dict.fromkeys(("one", "two"), (RuntimeName.ONNXRUNTIME, model))
        timed = device.time(models, feeds, threads=1, plan=Plan(rounds=10, budget_s=2))
        assert all(min(each.samples_ms) > 0 for each in timed.times.values())
        with pytest.raises(HttpStatusError, match="401"):
            AgentLab(f"http://127.0.0.1:{port}", "another")
