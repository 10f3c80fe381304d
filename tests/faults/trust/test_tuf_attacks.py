"""The attacks that the TUF specification names (section 1.5.2), each refused by its own error.

After every refusal the device works on: what it trusted before is as it was, and once the attack ends it
goes on from there. A real HTTP server on loopback stands between the repository and the device.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from edgewise.device.trust.client import RepositoryClient
from edgewise.errors import (
    DigestError,
    EndlessDataError,
    ExpiredError,
    HttpStatusError,
    MetadataError,
    MixedMetadataError,
    RollbackError,
    SignatureError,
    TransferError,
    TrustError,
    UnknownTargetError,
)
from tests.faults.trust.simulator import Repository, Server, signer

NAME = "kws/kws-1.2.0.edgewise"
GOOD = b"the bundle that was signed"


class Device:
    """A client that has refreshed once and holds the good bundle."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.repository = server.repository
        self.folder = folder
        self.bundle = folder / "bundle"
        self.repository.release(NAME, GOOD)
        self.update()
        self.trusted = self.versions()

    def client(self) -> RepositoryClient:
        """Return a client as after a restart: what is trusted is read from the folder."""
        return self.server.client(self.folder / "metadata")

    def update(self) -> None:
        client = self.client()
        client.refresh()
        client.download(client.find(NAME), self.bundle)

    def versions(self) -> dict[str, int]:
        kept = sorted((self.folder / "metadata").glob("*.json"))
        return {path.stem: Metadata.from_file(str(path)).signed.version for path in kept}

    def refuses(self, kind: type[TrustError | TransferError], match: str | None = None) -> None:
        """Check the error, its kind, and that neither metadata nor bundle changed."""
        with pytest.raises(kind, match=match) as caught:
            self.update()
        assert type(caught.value) is kind
        assert isinstance(caught.value, TrustError) is not isinstance(caught.value, TransferError)
        assert self.bundle.read_bytes() == GOOD
        assert [path.name for path in self.folder.iterdir() if path.is_file()] == ["bundle"]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with Server(Repository()).running() as server:
        yield Device(server, tmp_path)


def path_of(repository: Repository, name: str = NAME) -> str:
    """Return where the server keeps a target."""
    folder, _, file = name.rpartition("/")
    return f"targets/{folder}/{repository.targets.targets[name].hashes['sha256']}.{file}"


def test_arbitrary_software_of_the_same_length(device: Device) -> None:
    device.repository.release(NAME, b"the bundle that is to come")
    path = path_of(device.repository)
    good, device.repository.files[path] = device.repository.files[path], b"the bundle of an attacker!"
    device.refuses(DigestError)
    device.repository.files[path] = good
    device.update()
    assert device.bundle.read_bytes() == good


def test_arbitrary_software_signed_by_a_key_that_nobody_trusts(device: Device) -> None:
    device.repository.signers["targets"] = [signer(99)]
    device.repository.release(NAME, b"of an attacker")
    device.refuses(SignatureError)
    assert device.versions()["targets"] == device.trusted["targets"]


def test_arbitrary_software_that_no_role_lists(device: Device) -> None:
    device.repository.files["targets/kws/evil"] = b"of an attacker"
    client = device.client()
    with pytest.raises(UnknownTargetError):
        client.find("kws/evil")


def test_endless_metadata(device: Device) -> None:
    device.repository.files["metadata/timestamp.json"] += b" " * 20_000
    device.refuses(EndlessDataError)
    assert device.versions() == device.trusted


def test_endless_snapshot_beyond_its_signed_length(device: Device) -> None:
    device.repository.publish("snapshot", "timestamp")
    device.repository.files[f"metadata/{device.repository.snapshot.version}.snapshot.json"] += b" "
    device.refuses(EndlessDataError)
    assert device.versions()["snapshot"] == device.trusted["snapshot"]


def test_endless_target(device: Device) -> None:
    device.repository.release(NAME, b"a bundle to come")
    device.repository.files[path_of(device.repository)] += b"!" * 100_000
    device.refuses(EndlessDataError)


def test_extraneous_dependencies_by_a_role_that_may_not_sign_them(device: Device) -> None:
    """A product's signer lists another product's bundle: the delegation's paths do not cover it."""
    device.repository.delegate("vision", ["vision/*"], signer(20))
    device.repository.add("kws/extra.edgewise", b"dragged in", role="vision")
    device.repository.add("vision/model.edgewise", b"its own", role="vision")
    device.repository.publish("vision", bump=False)
    device.repository.publish("targets", "snapshot", "timestamp")
    client = device.client()
    assert client.find("vision/model.edgewise").length == len(b"its own")
    with pytest.raises(UnknownTargetError):
        client.find("kws/extra.edgewise")


def test_fast_forward_is_undone_by_new_keys(device: Device) -> None:
    """An attacker with the online keys signs the highest version; new keys in a new root undo it."""
    repository = device.repository
    repository.timestamp.version = repository.snapshot.version = 2**31
    repository.publish("snapshot", "timestamp")
    device.update()
    repository.timestamp.version = repository.snapshot.version = 10
    repository.publish("snapshot", "timestamp")
    device.refuses(RollbackError)
    repository.trust("timestamp", signer(30))
    repository.trust("snapshot", signer(31))
    repository.publish("root", "snapshot", "timestamp")
    device.update()
    assert device.versions()["timestamp"] == repository.timestamp.version


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_indefinite_freeze(device: Device, role: str) -> None:
    device.repository.signed[role].expires = device.repository.now - timedelta(seconds=1)
    roles = {"root": ["root"], "timestamp": ["timestamp"], "snapshot": ["snapshot", "timestamp"]}
    device.repository.publish(*roles.get(role, ["targets", "snapshot", "timestamp"]))
    device.refuses(ExpiredError)
    device.repository.signed[role].expires = device.repository.now + timedelta(days=1)
    device.repository.publish(*roles.get(role, ["targets", "snapshot", "timestamp"]))
    device.update()


def test_indefinite_freeze_by_a_server_that_goes_on_answering_not_modified(device: Device) -> None:
    """The ETag spares bytes, not the expiry check."""

    def unchanged(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        known = bool(handler.headers["If-None-Match"])
        handler.send_response(304 if known else 200)
        handler.send_header("ETag", '"same"')
        handler.send_header("Content-Length", "0" if known else str(len(data)))
        handler.end_headers()
        handler.wfile.write(b"" if known else data)

    device.server.answers["timestamp"] = unchanged
    device.update()
    device.update()
    later = device.server.client(device.folder / "metadata", now=device.repository.now + timedelta(days=31))
    with pytest.raises(ExpiredError):
        later.refresh()


def test_malicious_mirror_that_has_no_keys(device: Device) -> None:
    """A mirror can change any byte of any file; each is refused, whichever it is."""
    device.repository.release(NAME, b"a bundle to come")
    whole = dict(device.repository.files)
    version = device.repository.snapshot.version
    for path, kind in (
        ("metadata/timestamp.json", SignatureError),
        (f"metadata/{version}.snapshot.json", MixedMetadataError),
        (f"metadata/{device.repository.targets.version}.targets.json", MixedMetadataError),
        (path_of(device.repository), DigestError),
    ):
        document = whole[path]
        expires = re.search(rb"expires\W+", document)
        at = expires.end() if expires else 3
        device.repository.files[path] = document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]
        device.refuses(kind)
        device.repository.files = dict(whole)
    device.update()
    assert device.bundle.read_bytes() == b"a bundle to come"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 16_000, b'{"signed": {}}'],
    ids=["empty", "cut off", "a list", "no text", "deep", "no role"],
)
def test_malicious_mirror_that_sends_no_metadata(device: Device, data: bytes) -> None:
    device.repository.files["metadata/timestamp.json"] = data
    device.refuses(MetadataError)
    assert device.versions() == device.trusted


def test_malicious_mirror_that_is_gone_is_a_network_failure(device: Device) -> None:
    del device.repository.files["metadata/timestamp.json"]
    device.refuses(HttpStatusError)
    assert device.versions() == device.trusted


def test_mix_and_match_of_a_snapshot(device: Device) -> None:
    """Snapshots of two states, each with good signatures, under the newer one's timestamp."""
    old = device.repository.files[f"metadata/{device.repository.snapshot.version}.snapshot.json"]
    device.repository.release(NAME, b"a bundle to come")
    version = device.repository.snapshot.version
    device.repository.files[f"metadata/{version}.snapshot.json"] = old
    device.refuses(MixedMetadataError)


@pytest.mark.parametrize("hashes", [True, False])
def test_mix_and_match_of_targets(device: Device, *, hashes: bool) -> None:
    device.repository.hashes = hashes
    old = device.repository.files[f"metadata/{device.repository.targets.version}.targets.json"]
    device.repository.release(NAME, b"a bundle to come")
    device.repository.files[f"metadata/{device.repository.targets.version}.targets.json"] = old
    device.refuses(MixedMetadataError)
    assert device.versions()["targets"] == device.trusted["targets"]


def test_rollback_of_the_timestamp(device: Device) -> None:
    old = device.repository.files["metadata/timestamp.json"]
    device.repository.publish("timestamp")
    device.update()
    device.repository.files["metadata/timestamp.json"] = old
    device.refuses(RollbackError)
    assert device.versions()["timestamp"] == device.repository.timestamp.version


def test_rollback_of_the_snapshot(device: Device) -> None:
    device.repository.snapshot.version -= 2
    device.repository.publish("snapshot", "timestamp")
    device.refuses(RollbackError)
    assert device.versions() == device.trusted


def test_rollback_of_targets(device: Device) -> None:
    device.repository.targets.version -= 2
    device.repository.publish("targets", "snapshot", "timestamp")
    device.refuses(RollbackError)
    assert device.versions()["targets"] == device.trusted["targets"]


def test_rollback_by_taking_a_role_out_of_the_snapshot(device: Device) -> None:
    device.repository.delegate("vision", ["vision/*"], signer(20))
    device.repository.publish("vision", bump=False)
    device.repository.publish("targets", "snapshot", "timestamp")
    device.update()
    del device.repository.snapshot.meta["vision.json"]
    device.repository.publish("snapshot", "timestamp")
    device.refuses(MetadataError, match="missing info")


def test_rollback_of_the_root_is_not_asked_for(device: Device) -> None:
    """The chain of roots only goes up: an old root under the next number is refused."""
    device.repository.files["metadata/2.root.json"] = device.repository.initial_root
    device.refuses(RollbackError)
    assert device.versions()["root"] == 1


def test_key_compromise_below_the_threshold(device: Device) -> None:
    """Two of three targets keys must sign; the thief of one signs three times."""
    repository = device.repository
    repository.trust("targets", signer(40), signer(41), signer(42))
    repository.root.roles["targets"].threshold = 2
    repository.publish("root")
    repository.release(NAME, GOOD)
    device.update()
    repository.signers["targets"] = [signer(40), signer(40), signer(40)]
    repository.release(NAME, b"of the thief")
    device.refuses(SignatureError)


def test_key_compromise_of_the_online_keys_ships_no_bundle(device: Device) -> None:
    """Who holds snapshot and timestamp can freeze, not sign targets."""
    repository = device.repository
    repository.targets.targets[NAME] = TargetFile.from_data(NAME, b"of the thief", ["sha256"])
    repository.signers["targets"] = repository.signers["timestamp"]
    repository.publish("targets", "snapshot", "timestamp")
    device.refuses(SignatureError)


def test_key_compromise_ends_with_the_keys_revocation(device: Device) -> None:
    stolen = device.repository.signers["targets"]
    device.repository.trust("targets", signer(50))
    device.repository.publish("root")
    device.repository.release(NAME, GOOD)
    device.update()
    device.repository.signers["targets"] = stolen
    device.repository.release(NAME, b"of the thief")
    device.refuses(SignatureError)


def test_key_compromise_of_a_root_key_makes_no_root(device: Device) -> None:
    repository = device.repository
    repository.trust("root", signer(60))
    repository.publish("root")  # by the new key alone: the old one must sign it too
    device.refuses(SignatureError)
    assert device.versions()["root"] == 1


def test_a_root_planted_in_the_cache_is_no_trust_anchor(device: Device) -> None:
    """Who can write to the folder of metadata cannot make a device trust other keys."""
    evil = Repository()
    for number, role in enumerate(("root", "timestamp", "snapshot", "targets")):
        evil.trust(role, signer(70 + number))
    evil.publish("root", "targets", "snapshot", "timestamp", bump=False)
    metadata = device.folder / "metadata"
    (metadata / "root.json").unlink()
    (metadata / "root.json").write_bytes(evil.files["metadata/1.root.json"])
    (metadata / "root_history" / "1.root.json").write_bytes(evil.files["metadata/1.root.json"])
    (metadata / "root_history" / "2.root.json").write_bytes(evil.files["metadata/1.root.json"])
    device.update()
    device.repository.files = evil.files
    device.refuses(SignatureError)


def test_metadata_that_were_damaged_on_the_disk_are_fetched_again(device: Device) -> None:
    for name in ("timestamp", "snapshot", "targets"):
        (device.folder / "metadata" / f"{name}.json").write_bytes(b"")
        device.update()
        assert device.versions() == device.trusted


@pytest.mark.parametrize("digest", ["/../../escaped", "../../escaped", "AB" * 32, ""])
def test_arbitrary_software_under_a_digest_that_is_a_path(device: Device, digest: str) -> None:
    """Also what is signed does not choose where a device writes."""
    device.repository.targets.targets[NAME].hashes = {"sha256": digest}
    device.repository.publish("targets", "snapshot", "timestamp")
    device.refuses(MetadataError)


def test_metadata_are_on_the_disk_before_they_count(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timestamp that a power cut takes away would allow a rollback."""
    flushed = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    device.repository.publish("root")
    device.repository.release(NAME, GOOD)
    device.update()
    assert {f".{name}.json.partial" for name in ("2.root", "timestamp", "snapshot", "targets")} <= flushed


def test_unknown_fields_are_part_of_what_is_signed(device: Device) -> None:
    device.repository.targets.unrecognized_fields["x-new"] = {"a": [1, 2]}
    device.repository.release(NAME, GOOD)
    device.update()
    kept = json.loads((device.folder / "metadata" / "targets.json").read_bytes())
    assert kept["signed"]["x-new"] == {"a": [1, 2]}


def test_metafiles_say_what_the_tests_above_rely_on(device: Device) -> None:
    """Hashes and lengths stand in timestamp and snapshot, so that mixed metadata meet them first."""
    meta: MetaFile = device.repository.timestamp.snapshot_meta
    assert meta.length
    assert meta.hashes
