"""The device's labels, which an operator may change: asked for now and then, signed with the device's key."""

from __future__ import annotations

import secrets
import time
from urllib.parse import urlsplit

import msgspec

from edgewise.contracts.enrolment import NONCE_BYTES, Label
from edgewise.device.agent.enrolment import MOST_ANSWER_BYTES, Enrolment, device_url
from edgewise.device.trust.transport import Transport
from edgewise.device.uplink.signing import authorization
from edgewise.errors import AgentError


class _Seen(msgspec.Struct):
    labels: tuple[Label, ...]


def ask(enrolment: Enrolment, transport: Transport) -> tuple[str, ...]:
    """Return the labels as the server has them. Raises TransferError, AgentError for an answer that is none."""
    url = device_url(enrolment.identity)
    signed = authorization(
        device=enrolment.identity.device,
        sign=enrolment.key.sign,
        method="GET",
        target=urlsplit(url).path,
        body=b"",
        timestamp_s=int(time.time()),
        nonce=secrets.token_hex(NONCE_BYTES),
    )
    with transport.get(url, {"Authorization": signed}) as reply:
        reply.check_status()
        answer = reply.read(most=MOST_ANSWER_BYTES)
    try:
        return msgspec.json.decode(answer, type=_Seen).labels
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AgentError(f"{url}: {error}", required="the device as the fleet server shows it") from error
