"""How a device joins a fleet, and how it signs each request afterwards.

A device keeps an Ed25519 key that never leaves it. A request carries one header

    Authorization: Edgewise-Ed25519 device=ID,timestamp=SECONDS,nonce=HEX,signature=BASE64URL

and the signature is over `to_sign`: method, path with query, SHA-256 of the body, time and nonce. A server accepts a
time within `REPLAY_WINDOW_S` of its own, and a nonce once.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Annotated

import msgspec

from edgewise.contracts.base import Value

SCHEME = "Edgewise-Ed25519"
REPLAY_WINDOW_S = 300
NONCE_BYTES = 16

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$")]
"""A name of a device, product or class, as everywhere in the fleet."""
Label = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}(=[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127})?$")
]
"""`key` or `key=value`."""

_HEADER = re.compile(
    r"device=(?P<device>[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}),timestamp=(?P<timestamp>[0-9]{1,12}),"
    r"nonce=(?P<nonce>[0-9a-f]{32}),signature=(?P<signature>[A-Za-z0-9_-]{86})"
)


class EnrolRequest(Value, kw_only=True):
    """What a device sends once, with the one-time token it was given."""

    token: Annotated[str, msgspec.Meta(min_length=8, max_length=128)]
    device: Name
    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """Raw Ed25519 public key."""


class Enrolled(Value, kw_only=True):
    """What a device learns when it has joined."""

    device: str
    product: str
    device_class: str
    labels: tuple[str, ...]
    poll_interval_s: int
    poll_jitter: float
    """Share of the interval over which polls are spread: the next one comes after interval x (1 + jitter x uniform)."""
    server_time_s: int


class Signed(Value, kw_only=True):
    """What the header of a signed request says."""

    device: str
    timestamp_s: int
    nonce: str
    signature: bytes


def to_sign(*, device: str, method: str, target: str, body: bytes, timestamp_s: int, nonce: str) -> bytes:
    """Return the bytes a device signs; `target` is the path with its query, as on the request line."""
    digest = hashlib.sha256(body).hexdigest()
    return f"edgewise-request-v1\n{device}\n{method}\n{target}\n{digest}\n{timestamp_s}\n{nonce}".encode()


def write_header(signed: Signed) -> str:
    """Return the value of the Authorization header."""
    signature = base64.urlsafe_b64encode(signed.signature).rstrip(b"=").decode()
    return f"{SCHEME} device={signed.device},timestamp={signed.timestamp_s},nonce={signed.nonce},signature={signature}"


def read_header(value: str) -> Signed | None:
    """Return what the header says, or None where it is not one of ours.

    >>> read_header("Bearer abc") is None
    True
    """
    scheme, _, rest = value.partition(" ")
    found = _HEADER.fullmatch(rest)
    if scheme != SCHEME or found is None:
        return None
    return Signed(
        device=found["device"],
        timestamp_s=int(found["timestamp"]),
        nonce=found["nonce"],
        signature=base64.urlsafe_b64decode(found["signature"] + "=="),
    )
