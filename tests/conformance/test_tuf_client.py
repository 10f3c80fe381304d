"""The executable `scripts/tuf-client`, from outside: exit codes, requests, kept metadata, downloaded files."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from tests.faults.trust.simulator import Repository, Server, signer

SCRIPT = Path(__file__).parents[2] / "scripts" / "tuf-client"
TOP_LEVEL_REQUESTS = [
    "metadata/2.root.json",
    "metadata/timestamp.json",
    "metadata/1.snapshot.json",
    "metadata/1.targets.json",
]
MAIN = runpy.run_path(str(SCRIPT), run_name="tuf_client")["main"]


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository).running() as running:
        yield running


class Client:
    """The executable with a folder for metadata and one for targets."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.metadata, self.targets, self._root = folder / "metadata", folder / "targets", folder / "root"
        self.metadata.mkdir()
        self.targets.mkdir()
        self._url = server.url

    def init(self, root: bytes) -> int:
        self._root.write_bytes(root)
        return self._run("init", str(self._root))

    def refresh(self) -> int:
        return self._run("--metadata-url", f"{self._url}/metadata/", "refresh")

    def download(self, name: str) -> int:
        return self._run(
            "--metadata-url", f"{self._url}/metadata/", "--target-name", name, "--target-dir", str(self.targets),
            "--target-base-url", f"{self._url}/targets/", "download",
        )  # fmt: skip

    def versions(self) -> dict[str, int]:
        kept = sorted(self.metadata.glob("*.json"))
        return {path.stem: Metadata.from_file(str(path)).signed.version for path in kept}

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.rglob("*")) if path.is_file()]

    def _run(self, *options: str) -> int:
        """Run the executable's main function: starting an interpreter each time would take most of the time."""
        code: int = MAIN(["--metadata-dir", str(self.metadata), *options])
        return code


@pytest.fixture
def client(tmp_path: Path, server: Server) -> Client:
    return Client(tmp_path, server)


def test_init_asks_nobody_and_refresh_asks_for_each_top_level_role_once(client: Client, repository: Repository) -> None:
    assert client.init(repository.initial_root) == 0
    assert repository.requests == []
    assert client.refresh() == 0
    assert repository.requests == TOP_LEVEL_REQUESTS
    assert client.versions() == {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 1}


def test_metadata_are_kept_byte_for_byte(client: Client, repository: Repository) -> None:
    assert client.init(repository.initial_root) == client.refresh() == 0
    assert (client.metadata / "snapshot.json").read_bytes() == repository.files["metadata/1.snapshot.json"]
    assert (client.metadata / "root.json").read_bytes() == repository.initial_root


@pytest.mark.parametrize("damage", ["version", "signature", "not json"])
def test_a_root_that_is_no_root_is_refused_without_a_request(
    client: Client, repository: Repository, damage: str
) -> None:
    root = json.loads(repository.initial_root)
    if damage == "version":
        del root["signed"]["version"]
    elif damage == "signature":
        root["signatures"][0]["sig"] = "00" * 64
    client.init(b"{" if damage == "not json" else json.dumps(root).encode())
    assert client.refresh() == 1
    assert repository.requests == []


def test_a_target_is_downloaded_once_and_replaced_under_the_same_name(client: Client, repository: Repository) -> None:
    assert client.init(repository.initial_root) == 0
    repository.release("path/to/a file", b"first")
    assert client.download("path/to/a file") == 0
    fetched = len(repository.requests)
    assert client.download("path/to/a file") == 0
    assert not any("targets/" in path for path in repository.requests[fetched:])
    repository.release("path/to/a file", b"second")
    assert client.download("path/to/a file") == 0
    assert client.files() == [b"second"]


def test_a_missing_target_fails_after_a_whole_refresh(client: Client, repository: Repository) -> None:
    assert client.init(repository.initial_root) == 0
    assert client.download("nobody knows it") == 1
    assert repository.requests == TOP_LEVEL_REQUESTS
    assert client.files() == []


@pytest.mark.parametrize("name", ["?", "#", "/kws", "../kws", "a b", "1.2"])
def test_names_of_roles_are_quoted_in_addresses_and_files(client: Client, repository: Repository, name: str) -> None:
    repository.delegate(name, ["*"], signer(9))
    repository.publish(name, bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == 0
    assert client.download("nobody knows it") == 1
    assert f"metadata/1.{name}.json" in repository.requests
    assert len(client.versions()) == 5
    assert not list(client.metadata.parent.glob("*.json"))


def test_keys_are_rotated_along_the_chain_of_roots(client: Client, repository: Repository) -> None:
    assert client.init(repository.initial_root) == 0
    old = repository.signers["root"]
    repository.trust("root", signer(10), signer(11))
    repository.root.roles["root"].threshold = 2
    repository.signers["root"] = [*repository.signers["root"], *old]
    repository.publish("root")
    repository.signers["root"] = [signer(10)]
    repository.publish("root")  # one signature of two: refused, and the second root stays
    assert client.refresh() == 1
    assert client.versions()["root"] == 2
    repository.signers["root"] = [signer(10), signer(11)]
    repository.publish("root", bump=False)
    assert client.refresh() == 0
    assert client.versions()["root"] == 3


def test_a_kept_role_is_verified_against_the_role_that_delegates_now(client: Client, repository: Repository) -> None:
    """Two roles delegate to a third, one of them to other keys: what the first found is not trusted by the second."""
    for name, path, key in (("a", "a/*", signer(12)), ("b", "b/*", signer(13))):
        repository.delegate(name, [path], key)
    repository.delegate("third", ["*/*"], signer(14), by="a")
    repository.delegate("third", ["*/*"], signer(15), by="b")
    repository.add("a/file", b"trusted by a", role="third")
    repository.add("b/file", b"not trusted by b", role="third")
    repository.publish("third", "a", "b", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init(repository.initial_root) == 0
    assert client.download("a/file") == 0
    assert client.download("b/file") == 1
    assert client.files() == [b"trusted by a"]


def test_files_without_consistent_snapshots_have_plain_names(client: Client, repository: Repository) -> None:
    repository.root.consistent_snapshot = False
    repository.publish("root")
    repository.add("kws/file", b"data")
    repository.publish("targets", "snapshot", "timestamp")
    repository.files["targets/kws/file"] = b"data"
    for role in ("snapshot", "targets"):
        version = repository.signed[role].version
        repository.files[f"metadata/{role}.json"] = repository.files.pop(f"metadata/{version}.{role}.json")
    assert client.init(repository.initial_root) == 0
    assert client.download("kws/file") == 0
    assert client.files() == [b"data"]


def test_without_init_there_is_nothing_to_trust(client: Client, repository: Repository) -> None:
    assert client.refresh() == 1
    (client.metadata / "root.json").write_bytes(repository.initial_root)
    assert client.refresh() == 1
    assert repository.requests == []


def test_it_is_an_executable(repository: Repository, server: Server, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(repository.initial_root)
    # The interpreter of the tests first on the PATH: that is what `env python3` finds.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for code, options in (
        (0, ["init", str(tmp_path / "root")]),
        (0, ["--metadata-url", f"{server.url}/metadata/", "refresh"]),
        (1, ["refresh"]),
        (1, ["--metadata-url", f"{server.url}/nowhere/", "refresh"]),
    ):
        done = subprocess.run(
            [SCRIPT, "--metadata-dir", tmp_path, *options], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert "timestamp.json" in {path.name for path in tmp_path.iterdir()}
