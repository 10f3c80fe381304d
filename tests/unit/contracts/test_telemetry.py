from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import (
    MOST_BYTES,
    Envelope,
    Key,
    Sketch,
    decode_envelope,
    encode_envelope,
)
from edgewise.errors import TelemetryError

ENVELOPE = Envelope(
    device="gateway-17",
    boot="0f6e",
    sequence=3,
    start_unix_ms=1_000,
    end_unix_ms=61_000,
    device_class="rpi4",
    release="ab" * 32,
    variant="int8_static",
    histograms={"latency_ms": histogram_of([1.0, 2.0, 3.0])},
    counters={"requests": 3},
    outcomes={OutcomeKind.LOCAL: 3},
    sketches={"margin": Sketch(edges=(0.0, 0.5), counts=(0, 2, 1))},
)


def changed(**fields: Any) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(ENVELOPE), **fields})


def test_an_envelope_is_given_back_with_its_key() -> None:
    assert decode_envelope(encode_envelope(ENVELOPE)) == ENVELOPE
    assert ENVELOPE.key == Key("gateway-17", "0f6e", 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"device": ""},
        {"device": "a/../b"},
        {"device": "x" * 129},
        {"sequence": -1},
        {"sequence": 2**63},
        {"crashes": -1},
        {"release": "ab"},
        {"format_version": 2},
        {"start_unix_ms": 61_001},
        {"end_unix_ms": 10**12},
        {"counters": {"requests": -1}},
        {"counters": {f"c{number}": 1 for number in range(65)}},
        {"counters": {"Bad Name": 1}},
        {"histograms": {"latency_ms": {"zero_count": 1}}},
        {"sketches": {"margin": {"edges": [1.0, 0.0], "counts": [0, 0, 0]}}},
        {"sketches": {"margin": {"edges": [1.0], "counts": [0]}}},
        {"outcomes": {"wished": 1}},
        {"surprise": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_malformed_envelope_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TelemetryError, match="cannot be read"):
        decode_envelope(changed(**fields))


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(TelemetryError, match="cannot be read"):
        decode_envelope(data)


def test_an_envelope_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(TelemetryError, match="bytes"):
        decode_envelope(b" " * (MOST_BYTES + 1))
