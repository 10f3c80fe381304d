"""What a rollout decides reaches devices as signed files: through server, repository and the device's own checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from edgewise.bundle.delta_apply import apply_delta
from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.director import assignment
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Transport
from edgewise.errors import EdgewiseError
from edgewise.fleet import administer
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import open_files
from edgewise.fleet.repository.image import RoleKeys, add_bundle, begin, delegate
from edgewise.fleet.repository.online import make_online_keys, online_signers
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate, signer_of
from tests.conformance.fleet.backends import Backend, free_port, start_server
from tests.conformance.fleet.clients import Fleet
from tests.conformance.fleet.rollouts import POLICY, STAGE, bundle, draft, kinds, order, publish
from tests.unit.bundle.bundles import PRIVATE

PRODUCT = "directed"
ROOTS = {"repository": "root.json", "repository/director": "director-root.json"}


def repository(backend: Backend, folder: Path, bundles: Mapping[str, bytes] | None = None) -> None:
    """Write both repositories with two bundles, as their owner does, and the roots that devices are enrolled with."""
    bundles = bundles or {version: bundle(PRODUCT, version) for version in ("1.0.0", "1.1.0")}
    owner = signer_of(generate())
    own = RoleKeys((owner.public_key,))
    server = {name: RoleKeys((key,)) for name, key in make_online_keys(folder / "online", passphrase=None).items()}
    signers = (owner, *online_signers(folder / "online", passphrase=None))
    image = {"targets": own, "snapshot": server["snapshot"], "timestamp": server["timestamp"]}
    director = dict.fromkeys(("targets", "snapshot", "timestamp"), server["director"])
    for (place, name), roles in zip(ROOTS.items(), (image, director), strict=True):
        files = open_files(backend.store, place)
        edition = Edition(files, now=datetime.now(UTC), trusted_root=None)
        begin(edition, {"root": own, **roles})
        edition.publish(signers)
        (folder / name).write_bytes(files.read("metadata/1.root.json"))
    images = open_files(backend.store, "repository")

    def change(how: Callable[[Edition], object]) -> None:
        edition = Edition(images, now=datetime.now(UTC), trusted_root=(folder / "root.json").read_bytes())
        how(edition)
        edition.publish(signers)

    change(lambda edition: delegate(edition, PRODUCT, own))
    for version, data in bundles.items():
        path = folder / f"{version}.edgewise"
        path.write_bytes(data)
        change(lambda edition, path=path: add_bundle(edition, images, path))  # type: ignore[misc]  # bound at once


def assigned(url: str, folder: Path, device: str, labels: frozenset[str]) -> str:
    """Return the version that a device finds it should run, as it finds it: from signed files alone."""
    clients = [
        RepositoryClient(
            folder / device / name,
            (folder / name).read_bytes(),
            metadata_url=f"{url}/{place}/metadata/",
            targets_url=f"{url}/{place}/targets/",
            transport=Transport(Pace(grace_s=5, idle_s=5)),
            now=lambda: datetime.now(UTC),
        )
        for place, name in ROOTS.items()
    ]
    images, director = clients
    (folder / device).mkdir(exist_ok=True)
    found = assignment(director, images, product=PRODUCT, device=device, labels=labels, folder=folder / device)
    return found.serving.target.name.removeprefix(f"{PRODUCT}/{PRODUCT}-").removesuffix(".edgewise")


def test_a_rollout_reaches_devices_and_so_does_its_end(backend: Backend, tmp_path: Path) -> None:
    repository(backend, tmp_path)
    keys = tmp_path / "keys"
    keys.mkdir()
    save_pair(PRIVATE, keys / "seal.pem", passphrase=None)
    tokens = [
        administer.make_token(backend.database, role=role, products=(), note="", days=1).text
        for role in ("operator", "signer")
    ]
    port = free_port()
    options = ("--tick", "0.1", "--trusted", str(keys), "--online", str(tmp_path / "online"))
    log = tmp_path / "server.jsonl"
    server = start_server(backend, port, *options, "--trusted-root", str(tmp_path / "root.json"), log=log)
    fleet = Fleet(f"http://127.0.0.1:{port}", *tokens)
    try:
        releases = {version: publish(fleet, PRODUCT, version) for version in ("1.0.0", "1.1.0", "1.2.0")}
        first = {"product": PRODUCT, "version": "1.0.0"}
        assert fleet.http.post("/api/v1/rollouts/first", json=first, headers=fleet.operator).status_code == 201
        assert awaited(fleet.url, tmp_path, "1.0.0") == "1.0.0", log.read_text()[-3000:]
        stage = {key: value for key, value in STAGE.items() if key != "share"}
        name = draft(fleet, PRODUCT, [stage | {"label": "canary", "bake_s": 600}])
        for command, canary in (("start", "1.1.0"), ("roll_back", "1.0.0")):
            assert order(fleet, name, command) == 200
            assert awaited(fleet.url, tmp_path, canary) == canary, log.read_text()[-3000:]
            assert assigned(fleet.url, tmp_path, "other", frozenset()) == "1.0.0"
        assert kinds(fleet, name)[1:4] == ["started", "awaiting_deltas", "stage_started"]
        pair = "-".join(releases[version]["sha256"] for version in ("1.0.0", "1.1.0"))
        found = fleet.http.get(f"/repository/deltas/{pair}.delta")
        assert found.status_code == 200
        (tmp_path / "delta").write_bytes(found.content)
        made = tmp_path / "made.edgewise"
        apply_delta(tmp_path / "1.0.0.edgewise", tmp_path / "delta", made, digest=releases["1.1.0"]["sha256"])
        assert made.read_bytes() == (tmp_path / "1.1.0.edgewise").read_bytes()
        check_not_added(fleet)
    finally:
        fleet.close()
        server.terminate()
        server.wait()


def check_not_added(fleet: Fleet) -> None:
    """1.2.0 is published on the server, and its owner has not put it into the image repository."""
    body = {"product": PRODUCT, "from_version": "1.0.0", "to_version": "1.2.0", "stages": [STAGE], "policy": POLICY}
    name = fleet.http.post("/api/v1/rollouts", json=body, headers=fleet.operator).json()["rollout"]["id"]
    refused = fleet.http.post(f"/api/v1/rollouts/{name}/start", json={}, headers=fleet.operator)
    assert refused.status_code == 409
    assert "not in the image repository" in refused.json()["found"]
    assert "edgewise repo add" in refused.json()["next_step"]
    assert kinds(fleet, name) == ["created"]


def awaited(url: str, folder: Path, version: str) -> str:
    """Poll until a canary finds this version, or time is up; return what it found last."""
    until, found = time.monotonic() + 30, ""
    while found != version and time.monotonic() < until:
        time.sleep(0.3)
        found = polled(url, folder)
    return found


def polled(url: str, folder: Path) -> str:
    """Return what a canary finds, or nothing while no policy is published."""
    try:
        return assigned(url, folder, "canary", frozenset({"canary"}))
    except EdgewiseError:
        return ""
