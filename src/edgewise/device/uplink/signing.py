"""A request in the device's name, as `contracts.enrolment` says."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgewise.contracts.enrolment import Signed, to_sign, write_header

Sign = Callable[[bytes], bytes]
"""The device's Ed25519 key: message to signature of 64 bytes."""


def authorization(
    *, device: str, sign: Sign, method: str, target: str, body: bytes, timestamp_s: int, nonce: str
) -> str:
    """Return the value of the Authorization header; `target` is the path with its query."""
    message = to_sign(device=device, method=method, target=target, body=body, timestamp_s=timestamp_s, nonce=nonce)
    signed = Signed(device=device, timestamp_s=timestamp_s, nonce=nonce, signature=b"")
    return write_header(msgspec.structs.replace(signed, signature=sign(message)))
