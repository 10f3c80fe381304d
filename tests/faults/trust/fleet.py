"""A whole fleet's trust in one folder: offline keys, both repositories as the product writes them, one device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Signer

from edgewise.contracts.policy import Image, Policy
from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.director import Offer, assignment
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Transport
from edgewise.fleet.repository.director import direct
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import Files, open_files
from edgewise.fleet.repository.image import RoleKeys, add_bundle, begin, delegate
from tests.faults.trust.simulator import signer
from tests.unit.bundle.bundles import archive
from tests.unit.bundle.bundles import files as contents

PRODUCT = "kws"


def keys(*signers: Signer, threshold: int = 1) -> RoleKeys:
    return RoleKeys(tuple(each.public_key for each in signers), threshold)


class Fleet:
    """`root`, `targets` and `kws` are offline keys; `online` and `director` are what a thief of the server has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.now = datetime.now(UTC)
        self.root, self.targets, self.kws = signer(1), signer(2), signer(3)
        self.online, self.director = signer(4), signer(5)
        self.images, self.directions = self.files(), self.files("/director")
        image = {"root": keys(self.root), "targets": keys(self.targets)}
        begun = {"snapshot": keys(self.online), "timestamp": keys(self.online)}
        director = dict.fromkeys(("targets", "snapshot", "timestamp"), keys(self.director))
        direct_roles = {"root": keys(self.root), **director}
        self.roots = (self._begin(self.images, {**image, **begun}), self._begin(self.directions, direct_roles))
        edition = self.edition()
        delegate(edition, PRODUCT, keys(self.kws))
        edition.publish([self.targets, self.kws, self.online])

    def files(self, place: str = "") -> Files:
        return open_files(str(self.store), f"repository{place}")

    def _begin(self, place: Files, roles: dict[str, RoleKeys]) -> bytes:
        edition = Edition(place, now=self.now, trusted_root=None)
        begin(edition, roles)
        edition.publish([self.root, self.targets, self.online, self.director])
        return place.read("metadata/1.root.json")

    def edition(self, *, director: bool = False, now: datetime | None = None) -> Edition:
        place = self.directions if director else self.images
        return Edition(place, now=now or self.now, trusted_root=self.roots[director])

    def add(self, version: str, *, floor: str | None = None, signers: Sequence[Signer] | None = None) -> Image:
        """Seal and publish a bundle of a version."""
        path = self.folder / f"{version}.edgewise"
        path.write_bytes(sealed(version, floor))
        edition = self.edition()
        image = add_bundle(edition, self.images, path)
        edition.publish(signers or [self.kws, self.online])
        return image

    def direct(self, current: Image, *, signers: Sequence[Signer] | None = None, **more: Any) -> None:
        """Publish the product's policy."""
        policy = Policy(product=PRODUCT, current=current, **more)
        direct(self.edition(director=True), self.directions, [policy], signers or [self.director])

    def later(self, days: float) -> datetime:
        return self.now + timedelta(days=days)


def sealed(version: str, floor: str | None = None) -> bytes:
    manifest, content = contents(version=version)
    return archive(msgspec.structs.replace(manifest, product=PRODUCT, security_floor=floor or "1.0.0"), content)


class Device:
    """A device of the fleet with its two clients, over HTTP."""

    def __init__(self, fleet: Fleet, url: str, *, name: str = "gateway-17") -> None:
        self.fleet, self.url, self.name = fleet, url, name
        self.folder = fleet.folder / name
        self.bundle = self.folder / "slot" / "bundle"
        self.folder.mkdir()

    def client(self, place: str, root: bytes, *, now: datetime | None = None) -> RepositoryClient:
        return RepositoryClient(
            self.folder / ("director" if "director" in place else "images"),
            root,
            metadata_url=f"{self.url}/{place}/metadata/",
            targets_url=f"{self.url}/{place}/targets/",
            transport=Transport(Pace(grace_s=5, idle_s=5)),
            now=lambda: now or self.fleet.now,
        )

    def assigned(self, *, now: datetime | None = None, labels: frozenset[str] = frozenset()) -> Offer:
        images, director = self.fleet.roots
        found = assignment(
            self.client("repository/director", director, now=now),
            self.client("repository", images, now=now),
            product=PRODUCT,
            device=self.name,
            labels=labels,
            folder=self.folder,
        )
        return found.serving

    def update(self, *, now: datetime | None = None) -> Offer:
        """Ask what to run and fetch it."""
        found = self.assigned(now=now)
        images = self.client("repository", self.fleet.roots[0], now=now)
        images.download(found.target, self.bundle)
        return found


class Quiet(SimpleHTTPRequestHandler):
    """A plain file server: what a cache or an object store would be."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Patient(ThreadingHTTPServer):
    """A server whose clients are killed in the middle."""

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yield the address."""
    server = Patient(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
