"""`scripts/tuf-client` on metadata of unusual forms: kinds of keys and signatures, what is missing or has expired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, SuccinctRoles, TargetFile, Targets

from tests.conformance.test_tuf_client import Client, client, repository, server
from tests.faults.trust.simulator import Repository, signer

__all__ = ["client", "repository", "server"]  # fixtures


def changed(repository: Repository, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a published file without signing it again."""
    document = json.loads(repository.files[path])
    change(document)
    repository.files[path] = json.dumps(document).encode()


@pytest.mark.parametrize(
    "make",
    [
        CryptoSigner.generate_rsa,
        lambda: CryptoSigner.generate_rsa("rsa-pkcs1v15-sha256"),
        CryptoSigner.generate_ecdsa,
        CryptoSigner.generate_ed25519,
    ],
    ids=["rsa-pss", "rsa-pkcs1v15", "ecdsa", "ed25519"],
)
def test_every_kind_of_key_signs_and_a_wrong_signature_of_it_does_not(
    client: Client, repository: Repository, make: Callable[[], CryptoSigner]
) -> None:
    key = make()
    repository.root.add_key(key.public_key, "root")
    repository.root.roles["root"].threshold = 2
    repository.signers["root"] = [*repository.signers["root"], key]
    repository.publish("root")
    assert client.init(repository.initial_root) == client.refresh() == 0
    assert client.versions()["root"] == 2
    repository.publish("root")
    old = json.loads(repository.files["metadata/2.root.json"])["signatures"]
    changed(repository, "metadata/3.root.json", lambda each: each.update(signatures=old))
    assert client.refresh() == 1
    assert client.versions()["root"] == 2


def test_two_signatures_of_one_key_are_refused(client: Client, repository: Repository) -> None:
    repository.hashes = False
    repository.publish("targets", "snapshot", "timestamp")
    changed(repository, "metadata/2.snapshot.json", lambda each: each["signatures"].extend(list(each["signatures"])))
    assert client.init(repository.initial_root) == 0
    assert client.refresh() == 1
    assert "snapshot" not in client.versions()


@pytest.mark.parametrize("wrong", ["", "00", "zz"])
def test_a_wrong_signature_beside_enough_right_ones_does_no_harm(
    client: Client, repository: Repository, wrong: str
) -> None:
    second = signer(40)
    repository.root.add_key(second.public_key, "timestamp")
    repository.signers["timestamp"] = [*repository.signers["timestamp"], second]
    repository.publish("root", "timestamp")
    changed(repository, "metadata/timestamp.json", lambda each: each["signatures"][0].update(sig=wrong))
    assert client.init(repository.initial_root) == client.refresh() == 0


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_is_not_there_fails_and_keeps_what_came_before_it(
    client: Client, repository: Repository, role: str
) -> None:
    assert client.init(repository.initial_root) == client.refresh() == 0
    repository.publish("targets", "snapshot", "timestamp")
    del repository.files["metadata/timestamp.json" if role == "timestamp" else f"metadata/2.{role}.json"]
    assert client.refresh() == 1
    assert repository.requests[-1].endswith(f"{role}.json")
    order = ["timestamp", "snapshot", "targets"]
    assert client.versions() == {"root": 1} | {
        each: 2 if order.index(each) < order.index(role) else 1 for each in order
    }


def test_a_role_in_the_place_of_another_is_refused(client: Client, repository: Repository) -> None:
    key = repository.signers["timestamp"][0]
    assert isinstance(key, CryptoSigner)
    repository.root.add_key(key.public_key, "snapshot")
    repository.signers["snapshot"] = [*repository.signers["snapshot"], key]
    repository.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repository.publish("root", "snapshot")
    repository.files["metadata/timestamp.json"] = repository.files["metadata/2.snapshot.json"]
    assert client.init(repository.initial_root) == 0
    assert client.refresh() == 1
    assert client.versions() == {"root": 2}


@pytest.mark.parametrize("data", [b"\xff\xfe{}", b"", b"{}", b"[]", b'{"signatures": [], "signed": {}}'])
def test_what_is_no_metadata_is_refused(client: Client, repository: Repository, data: bytes) -> None:
    repository.files["metadata/timestamp.json"] = data
    assert client.init(repository.initial_root) == 0
    assert client.refresh() == 1
    assert client.versions() == {"root": 1}


def test_a_delegated_role_that_has_expired_is_not_used(client: Client, repository: Repository) -> None:
    repository.delegate("delegated", ["d/*"], signer(41))
    expired, whole = repository.now - timedelta(days=1), repository.now + timedelta(days=9)
    repository.signed["delegated"].expires = expired
    repository.add("d/file", b"data", role="delegated")
    repository.publish("delegated", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == client.refresh() == 0
    assert client.download("d/file") == 1
    assert client.files() == []
    assert "delegated" not in client.versions()
    repository.signed["delegated"].expires = whole
    repository.publish("delegated", "snapshot", "timestamp")
    assert client.download("d/file") == 0


def test_bins_are_found_by_the_hash_of_a_name(client: Client, repository: Repository) -> None:
    bins, key, name = SuccinctRoles([], 1, 3, "bin"), signer(42), "some/target"
    repository.targets.delegations = Delegations({}, None, bins)
    repository.targets.add_key(key.public_key)
    for each in bins.get_roles():
        repository.signed[each] = Targets(expires=repository.now + timedelta(days=9))
        repository.signers[each] = [key]
    role = bins.get_role_for_target(name)
    repository.add(name, b"in a bin", role=role)
    repository.publish(*bins.get_roles(), bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == client.download(name) == 0
    assert client.files() == [b"in a bin"]
    assert [each for each in repository.requests if "bin" in each] == [f"metadata/1.{role}.json"]


def test_a_delegation_by_hash_prefixes_is_followed(client: Client, repository: Repository) -> None:
    name = "x/y"
    repository.delegate("prefixed", ["*"], signer(43))
    assert repository.targets.delegations is not None
    assert repository.targets.delegations.roles is not None
    prefix = hashlib.sha256(name.encode()).hexdigest()[:2]
    old = repository.targets.delegations.roles["prefixed"]
    repository.targets.delegations.roles["prefixed"] = DelegatedRole(
        old.name, old.keyids, 1, terminating=False, path_hash_prefixes=[prefix]
    )
    repository.add(name, b"data", role="prefixed")
    repository.publish("prefixed", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == client.download(name) == 0
    assert client.files() == [b"data"]


@pytest.mark.parametrize("algorithms", [["sha512"], ["sha512", "sha256"]])
def test_other_algorithms_and_names_that_are_no_addresses(
    client: Client, repository: Repository, algorithms: list[str]
) -> None:
    target = TargetFile.from_data("päth/ünï 目?x#y%20z", b"data", algorithms)
    repository.targets.targets[target.path] = target
    for digest in target.hashes.values():
        repository.files[f"targets/päth/{digest}.ünï 目?x#y%20z"] = b"data"
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == client.download(target.path) == 0
    assert client.files() == [b"data"]


@pytest.mark.parametrize("name", [".", "..", "../up", "/abs", "a//b"])
def test_names_that_look_like_paths_stay_in_the_folder(client: Client, repository: Repository, name: str) -> None:
    repository.release(name, b"data")
    assert client.init(repository.initial_root) == client.download(name) == 0
    assert client.files() == [b"data"]
    assert {path.name for path in client.targets.parent.iterdir()} == {"metadata", "root", "targets"}
