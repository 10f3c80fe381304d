"""Where envelopes go, and what the answers mean: the fleet server, or any collector that speaks OTLP/HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from edgewise.contracts.telemetry import decode_envelope
from edgewise.device.trust.transport import Sent
from edgewise.device.uplink.otlp import export_request
from edgewise.device.uplink.signing import Sign, authorization

TELEMETRY, METRICS = "/api/v1/telemetry", "/v1/metrics"
JSON = {"Content-Type": "application/json"}
LATER = frozenset({429, 502, 503, 504})

Headers = Callable[[str, bytes, int], Mapping[str, str]]
"""What shows who sends: the path with its query, the body, Unix time in seconds -> headers."""


class Verdict(StrEnum):
    """What an answer says of a batch."""

    TAKEN = "taken"
    """The server has it, for good."""
    LATER = "later"
    """It may have it or not; send the same again."""
    NOT_NOW = "not now"
    """It kept nothing, for a reason outside the batch; send later."""
    TOO_LARGE = "too large"
    REFUSED = "refused"
    """It kept nothing, and will not take this batch as it is."""


class Judged(NamedTuple):
    """A verdict, and what the server said."""

    verdict: Verdict
    said: str = ""


class Destination(Protocol):
    """Who takes envelopes."""

    @property
    def url(self) -> str:
        """The whole address."""
        ...

    def sent(self, target: str, documents: Sequence[bytes], now_s: int) -> Sent:
        """Return the request for envelopes, the same bytes for the same envelopes."""
        ...

    def judge(self, status: int, body: bytes, count: int) -> Judged:
        """Return what an answer says of `count` envelopes."""
        ...


class FleetServer:
    """The fleet's own server: idempotent, and lossless."""

    def __init__(self, server: str, *, device: str, sign: Sign) -> None:
        """Take the server's address, and the device's name and key."""
        self.url = server.rstrip("/") + TELEMETRY
        self._headers = signed(device, sign)

    def sent(self, target: str, documents: Sequence[bytes], now_s: int) -> Sent:
        """Return the request for envelopes."""
        body = b"[" + b",".join(documents) + b"]"
        return Sent(body, {**JSON, **self._headers(target, body, now_s)})

    def judge(self, status: int, body: bytes, count: int) -> Judged:
        """Return what an answer says.

        An answer of 200 or 404 may be that of a hotel's login page: only one in the server's own words takes a batch,
        or loses it.
        """
        try:
            found = msgspec.json.decode(body, type=dict[str, int | str])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = {}
        said = f"{status} {found.get('kind', '')} {found.get('found', '')}".strip()
        if status == 202 and found.get("envelopes") == count:
            return Judged(Verdict.TAKEN)
        if status == 413 and "kind" in found:
            return Judged(Verdict.TOO_LARGE, said)
        if status == 400 and found.get("kind") == "TelemetryError":
            return Judged(Verdict.REFUSED, said)
        if status in {401, 403} and "kind" in found:
            return Judged(Verdict.NOT_NOW, said)
        return Judged(Verdict.LATER, said)


class OtlpCollector:
    """Any collector of OpenTelemetry.

    The protocol has no key of idempotence: a batch whose acknowledgement was lost is counted twice by a collector that
    does not know its bytes again. The fleet server does.
    """

    def __init__(self, endpoint: str, *, headers: Headers = lambda _target, _body, _now_s: {}) -> None:
        """Take the collector's address, without the path, and what shows who sends."""
        self.url = endpoint.rstrip("/") + METRICS
        self._headers = headers

    def sent(self, target: str, documents: Sequence[bytes], now_s: int) -> Sent:
        """Return the request for envelopes."""
        body = export_request([decode_envelope(each) for each in documents])
        return Sent(body, {**JSON, **self._headers(target, body, now_s)})

    def judge(self, status: int, body: bytes, count: int) -> Judged:  # noqa: ARG002 - one protocol for both
        """Return what an answer says (OTLP specification, "OTLP/HTTP response").

        What is rejected in part must not be sent again. Where the specification gives a batch up for a status that a
        wrong address or key explains, it is kept.
        """
        try:
            found = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Judged(Verdict.TOO_LARGE if status == 413 else Verdict.LATER, f"{status}, and no JSON")
        if status == 200:
            partial = found.partial
            rejected = f"{partial.rejected} points rejected: {partial.message[:300]}" if partial.rejected else ""
            return Judged(Verdict.TAKEN, rejected)
        verdicts = {400: Verdict.REFUSED, 413: Verdict.TOO_LARGE, 401: Verdict.NOT_NOW, 403: Verdict.NOT_NOW}
        return Judged(verdicts.get(status, Verdict.LATER), f"{status} {found.message[:300]}")


def signed(device: str, sign: Sign) -> Headers:
    """Return the headers of a device's own requests."""

    def headers(target: str, body: bytes, now_s: int) -> Mapping[str, str]:
        value = authorization(
            device=device,
            sign=sign,
            method="POST",
            target=target,
            body=body,
            timestamp_s=now_s,
            nonce=secrets.token_hex(16),
        )
        return {"Authorization": value}

    return headers


class _Partial(msgspec.Struct, frozen=True):
    rejected: int | str = msgspec.field(name="rejectedDataPoints", default=0)
    message: str = msgspec.field(name="errorMessage", default="")


class _Answer(msgspec.Struct, frozen=True):
    """`ExportMetricsServiceResponse`, or a `google.rpc.Status`; unknown keys are let be."""

    partial: _Partial = msgspec.field(name="partialSuccess", default=_Partial())
    message: str = ""
