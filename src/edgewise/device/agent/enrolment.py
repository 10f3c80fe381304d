"""Who the device is: its key, what the server said of it, and the roots it trusts.

    enrolment/device.json           what the server answered
    enrolment/key.pem               the device's Ed25519 key, readable by its owner only
    enrolment/root.json             root of the image repository, whose keys are offline
    enrolment/director-root.json    root of the director, which says what to run

The folder is made whole beside its place and put there by one rename: a device is enrolled, or it is not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Enrolled, EnrolRequest
from edgewise.device.agent.folder import DIRECTOR, ENROLMENT, IMAGES
from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.transport import Sent, Transport, check_address
from edgewise.device.trust.writing import refused, sync_folder, write_whole
from edgewise.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from edgewise.device.trust.transport import Reply

MOST_ROOT_BYTES = 512 * 1024
MOST_ANSWER_BYTES = 64 * 1024
_KEY, _IDENTITY, _ROOT, _DIRECTOR_ROOT = "key.pem", "device.json", "root.json", "director-root.json"


class Identity(Value, kw_only=True):
    """What the server answered, and where it is."""

    server: str
    """Address without a slash at its end."""
    device: str
    product: str
    device_class: str
    labels: tuple[str, ...] = ()
    poll_interval_s: int
    poll_jitter: float
    roots_on_first_use: bool
    """The roots were taken from the server at enrolment, not given by hand."""


class Roots(Value, kw_only=True):
    """Signed root metadata of both repositories, as bytes."""

    images: bytes
    director: bytes


class Enrolment:
    """An enrolled device."""

    def __init__(self, identity: Identity, key: Ed25519PrivateKey, roots: Roots) -> None:
        """Take the parts; see `load`."""
        self.identity = identity
        self.key = key
        self.roots = roots


def read_roots(image_root: Path) -> Roots:
    """Return the root in a file and the director's beside it, `director-NAME`. Raises ConfigError."""
    found = []
    for path in (image_root, image_root.with_name(f"director-{image_root.name}")):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}",
                required="the two roots that `edgewise repo init` wrote, side by side: NAME and director-NAME",
                next_step="copy both to the device",
            ) from error
        if len(data) > MOST_ROOT_BYTES:
            raise ConfigError(f"{path} has {len(data)} bytes", required=f"a root of at most {MOST_ROOT_BYTES}")
        found.append(data)
    return Roots(images=found[0], director=found[1])


def repository_url(server: str, *, director: bool = False) -> str:
    """Return where a repository's `metadata/` and `targets/` are, without a slash at its end."""
    return f"{server}/repository/director" if director else f"{server}/repository"


def client(
    folder: Path, server: str, roots: Roots, transport: Transport, *, director: bool = False
) -> RepositoryClient:
    """Return the client of one repository, its trusted metadata below `folder`. Raises UnsafeAddressError."""
    url = repository_url(server, director=director)
    return RepositoryClient(
        folder / (DIRECTOR if director else IMAGES),
        roots.director if director else roots.images,
        metadata_url=f"{url}/metadata/",
        targets_url=f"{url}/targets/",
        transport=transport,
    )


def fetch_roots(server: str, transport: Transport) -> Roots:
    """Return the first roots as the server offers them: trust on first use. Raises TransferError, EndlessDataError."""
    found = []
    for director in (False, True):
        with transport.get(f"{repository_url(server, director=director)}/metadata/1.root.json") as reply:
            reply.check_status()
            found.append(reply.read(most=MOST_ROOT_BYTES))
    return Roots(images=found[0], director=found[1])


def enrol(
    folder: Path,
    *,
    server: str,
    token: str,
    device: str,
    roots: Roots | None,
    again: bool,
    transport: Transport,
) -> Identity:
    """Make a key, join the fleet, keep both; nothing is left behind where it fails.

    `roots=None` takes what the server offers (trust on first use). `again` replaces an earlier enrolment, which
    stays where this one fails. Raises AgentError where the device is enrolled or the server refuses, ConfigError
    for a name or token that cannot be one, TrustError for roots that are none, TransferError, OutputError.
    """
    place = folder / ENROLMENT
    if place.exists() and not again:
        raise AgentError(
            f"{folder} is enrolled already",
            required="a folder that is not",
            next_step="give another --folder, or --again to replace the enrolment",
        )
    server = server.rstrip("/")
    check_address(server)
    given = roots is not None
    roots = roots or fetch_roots(server, transport)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as scratch:
        for director in (False, True):
            client(Path(scratch), server, roots, transport, director=director).check_root()
    key = Ed25519PrivateKey.generate()
    partial = folder / f".{ENROLMENT}.partial"
    try:
        _write(partial, key, roots)  # before the token is used: a disk that takes nothing does not cost it
        answer = _join(server, token, device, key, transport)
        identity = Identity(
            server=server,
            device=answer.device,
            product=answer.product,
            device_class=answer.device_class,
            labels=answer.labels,
            poll_interval_s=answer.poll_interval_s,
            poll_jitter=answer.poll_jitter,
            roots_on_first_use=not given,
        )
        write_whole(partial / _IDENTITY, msgspec.json.encode(identity))
        _put(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return identity


def load(folder: Path) -> Enrolment:
    """Return the enrolment that a folder keeps. Raises AgentError where there is none, or it cannot be read."""
    place = folder / ENROLMENT
    try:
        identity = msgspec.json.decode((place / _IDENTITY).read_bytes(), type=Identity)
        roots = Roots(images=(place / _ROOT).read_bytes(), director=(place / _DIRECTOR_ROOT).read_bytes())
        key = load_pem_private_key((place / _KEY).read_bytes(), None)
    except FileNotFoundError as error:
        raise AgentError(
            f"{folder} is not enrolled",
            required="a device that has joined a fleet",
            next_step="edgewise agent enroll --server URL --token TOKEN --root FILE",
        ) from error
    except (OSError, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise _damaged(folder, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(folder, "the key is of another kind")
    return Enrolment(identity, key, roots)


def keep_labels(folder: Path, identity: Identity) -> None:
    """Keep labels that an operator has changed. Raises OutputError."""
    write_whole(folder / ENROLMENT / _IDENTITY, msgspec.json.encode(identity))


def _write(partial: Path, key: Ed25519PrivateKey, roots: Roots) -> None:
    """Make the folder with all but the server's answer. Raises OutputError."""
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with open(os.open(partial / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:  # noqa: PTH123 - its mode from the start
            out.write(secret)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise refused(partial, error) from error
    write_whole(partial / _ROOT, roots.images)
    write_whole(partial / _DIRECTOR_ROOT, roots.director)


def _join(server: str, token: str, device: str, key: Ed25519PrivateKey, transport: Transport) -> Enrolled:
    asked = EnrolRequest(token=token, device=device, public_key=key.public_key().public_bytes_raw())
    try:
        body = msgspec.json.encode(asked)
        msgspec.json.decode(body, type=EnrolRequest)  # encoding does not look at patterns
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the device's name {device[:140]!r} or the token: {error}",
            required="a name of 1 to 128 of A-Z a-z 0-9 . _ : @ + -, and a token as the server gave it",
            next_step="correct --device or --token",
        ) from error

    def sent(_target: str) -> Sent:
        return Sent(body=body, headers={"Content-Type": "application/json"})

    with transport.post(f"{server}/api/v1/enrol", sent) as reply:
        answer = reply.read(most=MOST_ANSWER_BYTES)
        if reply.status in {400, 401, 403, 409, 422}:
            raise _refusal(reply, answer)
        reply.check_status()
    try:
        return msgspec.json.decode(answer, type=Enrolled)
    except msgspec.DecodeError as error:
        raise AgentError(
            f"{server} answered something else than an enrolment: {error}",
            required="a fleet server of this version",
            next_step="check --server",
        ) from error


class _Problem(msgspec.Struct):
    found: str = ""
    required: str = ""
    next_step: str = ""


def _refusal(reply: Reply, answer: bytes) -> AgentError:
    problem = _Problem()
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        problem = msgspec.json.decode(answer, type=_Problem)
    return AgentError(
        f"the server refuses the enrolment ({reply.status}): {problem.found[:300]}",
        required=problem.required[:300] or "a one-time token that was not used yet, and a name that nobody has",
        next_step=problem.next_step[:300] or "ask an operator for a new token, or give another --device",
    )


def _put(partial: Path, place: Path) -> None:
    """Put a finished enrolment in its place; one that was there goes. Raises OutputError."""
    before = place.with_name(f".{place.name}.before")
    try:
        sync_folder(partial)
        if place.exists():
            shutil.rmtree(before, ignore_errors=True)
            place.rename(before)
            for name in (IMAGES, DIRECTOR):  # metadata under the roots of before; what runs stays
                shutil.rmtree(place.with_name(name), ignore_errors=True)
        partial.rename(place)
        sync_folder(place.parent)
    except OSError as error:
        if before.exists() and not place.exists():
            before.rename(place)
        raise refused(place, error) from error
    shutil.rmtree(before, ignore_errors=True)


def _damaged(folder: Path, why: str) -> AgentError:
    return AgentError(
        f"{folder / ENROLMENT} cannot be used: {why}",
        required="the enrolment as this version wrote it",
        next_step="enrol again with --again and a new token",
    )


def device_url(identity: Identity) -> str:
    """Return where the server shows the device to itself."""
    return f"{identity.server}/api/v1/device/{quote(identity.device, safe='')}"
