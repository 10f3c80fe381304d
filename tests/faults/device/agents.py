"""A device whose agent is in this process, or in one of its own, under a repository that is a folder of files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewise.contracts.policy import Image
from edgewise.device.agent.enrolment import Identity, load
from edgewise.device.agent.running import Agent
from edgewise.device.agent.settings import Settings
from edgewise.fleet.repository.image import add_bundle
from tests.faults.device.bundles import real
from tests.faults.trust.fleet import PRODUCT, Fleet


def publish(fleet: Fleet, version: str, data: bytes | None = None) -> Image:
    """Add a bundle that runs to the repository; its weights differ by its version."""
    path = fleet.folder / f"{version}.edgewise"
    path.write_bytes(data or real(version, product=PRODUCT, seed=int(version.replace(".", ""))))
    edition = fleet.edition()
    image = add_bundle(edition, fleet.images, path)
    edition.publish([fleet.kws, fleet.online])
    return image


def enrol(fleet: Fleet, url: str, name: str = "gateway-17", *, poll_interval_s: int = 1) -> Path:
    """Write what `edgewise agent enroll` writes, without a server that enrols; return the agent's folder."""
    folder = fleet.folder / name
    place = folder / "enrolment"
    place.mkdir(parents=True)
    key = Ed25519PrivateKey.generate()
    (place / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    images, director = fleet.roots
    (place / "root.json").write_bytes(images)
    (place / "director-root.json").write_bytes(director)
    identity = Identity(
        server=url,
        device=name,
        product=PRODUCT,
        device_class="pi5",
        poll_interval_s=poll_interval_s,
        poll_jitter=0.0,
        roots_on_first_use=False,
    )
    (place / "device.json").write_bytes(msgspec.json.encode(identity))
    return folder


@contextlib.contextmanager
def started(folder: Path, settings: Settings | None = None) -> Iterator[Agent]:
    """Give the agent of a folder, started, as far as it does not wait."""
    agent = Agent(folder, load(folder), settings or Settings(), listen="")
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()
