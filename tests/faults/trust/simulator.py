"""A repository in memory, which signs whatever a test asks for, and a server that may misbehave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Transport

TOP = ("root", "timestamp", "snapshot", "targets")


@cache
def signer(_number: int) -> CryptoSigner:
    """Return the same key for the same number: making them takes time."""
    return CryptoSigner.generate_ed25519()


class Repository:
    """Metadata as objects to tamper with; `publish` signs roles and puts them up for fetching."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)
        expires = self.now + timedelta(days=30)
        self.signed: dict[str, Signed] = {
            "root": Root(expires=expires),
            "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "targets": Targets(expires=expires),
        }
        self.signers: dict[str, list[Signer]] = {}
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.hashes = True
        for number, role in enumerate(TOP):
            self.trust(role, signer(number))
        self.publish("root", "targets", "snapshot", "timestamp", bump=False)
        self.initial_root = self.files["metadata/1.root.json"]

    root = property(lambda self: cast("Root", self.signed["root"]))
    timestamp = property(lambda self: cast("Timestamp", self.signed["timestamp"]))
    snapshot = property(lambda self: cast("Snapshot", self.signed["snapshot"]))
    targets = property(lambda self: cast("Targets", self.signed["targets"]))

    def trust(self, role: str, *keys: CryptoSigner) -> None:
        """Make these the only keys of a top-level role."""
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        for key in keys:
            self.root.add_key(key.public_key, role)
        self.signers[role] = list(keys)

    def delegate(self, name: str, paths: list[str], key: CryptoSigner, *, by: str = "targets") -> None:
        """Delegate paths of a role to another; who delegates to a role first gives it its keys."""
        targets = cast("Targets", self.signed[by])
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        assert targets.delegations.roles is not None
        targets.delegations.roles[name] = DelegatedRole(name, [], 1, terminating=False, paths=paths)
        targets.add_key(key.public_key, name)
        self.signers.setdefault(name, [key])
        self.signed.setdefault(name, Targets(expires=self.now + timedelta(days=30)))

    def add(self, path: str, data: bytes, *, role: str = "targets", custom: dict[str, object] | None = None) -> None:
        """Sign a file's digest in a role and put the file up."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        cast("Targets", self.signed[role]).targets[path] = target
        folder, slash, name = path.rpartition("/")
        self.files[f"targets/{folder}{slash}{target.hashes['sha256']}.{name}"] = data

    def publish(self, *roles: str, bump: bool = True) -> None:
        """Sign the roles and put them up, each noted in the one above it."""
        for role in roles:
            signed = self.signed[role]
            if bump:
                signed.version += 1
            data = self.sign(role)
            self.files[f"metadata/{role}.json" if role == "timestamp" else f"metadata/{signed.version}.{role}.json"] = (
                data
            )
            if role not in {"root", "timestamp"}:
                meta = MetaFile.from_data(signed.version, data, ["sha256"]) if self.hashes else MetaFile(signed.version)
                if role == "snapshot":
                    self.timestamp.snapshot_meta = meta
                else:
                    self.snapshot.meta[f"{role}.json"] = meta

    def sign(self, role: str) -> bytes:
        """Return a role's bytes as they are now, by its keys."""
        metadata: Metadata[Any] = Metadata(self.signed[role])
        for key in self.signers[role]:
            metadata.sign(key, append=True)
        return metadata.to_bytes()

    def release(self, path: str, data: bytes) -> None:
        """Add a file and publish everything that changes."""
        self.add(path, data)
        self.publish("targets", "snapshot", "timestamp")


class Handler(BaseHTTPRequestHandler):
    """Serves a repository; a test may replace what happens for a path."""

    repository: Repository
    answers: dict[str, Callable[[BaseHTTPRequestHandler, bytes], object]]

    def do_GET(self) -> None:
        path = unquote(self.path).lstrip("/")
        self.repository.requests.append(path)
        data = self.repository.files.get(path)
        for part, answer in list(self.answers.items()):
            if part in path:
                answer(self, data or b"")
                return
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Server:
    """A real HTTP server on loopback in front of a repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler, bytes], object]] = {}
        handler = type("Bound", (Handler,), {"repository": repository, "answers": self.answers})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def client(
        self,
        folder: Path,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] | None = None,
        now: datetime | None = None,
    ) -> RepositoryClient:
        """Return a device's client of this server, with the root the repository began with."""
        pace = pace or Pace(grace_s=5, idle_s=5)
        return RepositoryClient(
            folder,
            self.repository.initial_root,
            metadata_url=f"{self.url}/metadata/",
            targets_url=f"{self.url}/targets/",
            transport=Transport(pace, clock=clock) if clock else Transport(pace),
            now=lambda: now or datetime.now(UTC),
        )
