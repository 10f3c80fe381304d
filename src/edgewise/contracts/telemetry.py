"""What a device sends up: one envelope per window, idempotent by (device, boot, sequence).

An envelope holds deltas: what happened between `start_unix_ms` and `end_unix_ms`, nothing before. The server may
receive it twice and in any order; adding up each key once gives the same figures always.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.histogram import Histogram
from edgewise.contracts.outcome import OutcomeKind
from edgewise.errors import TelemetryError

ENVELOPE_VERSION = 1

MOST_BYTES = 256 * 1024
MOST_SERIES = 64
"""Histograms, counters and sketches, of each kind at most so many."""
MOST_SKETCH_BINS = 256
MOST_COUNT = 2**53
"""The largest count that is a whole number in every reader of JSON."""
MOST_WINDOW_MS = 7 * 24 * 3600 * 1000
LATEST_UNIX_MS = 253_402_300_800_000
"""The year 10000."""

LATENCY_MS = "latency_ms"
"""Histogram: time of one inference, milliseconds."""
ENERGY_MJ = "energy_mj"
"""Histogram: energy of one inference, millijoules."""
REQUESTS = "requests"
"""Counter: inferences asked for."""
SHADOW_COMPARED = "shadow_compared"
"""Counter: inputs that the old and the new variant both answered."""
SHADOW_DISAGREED = "shadow_disagreed"
"""Counter: those of them whose top answers differ."""
CACHE_HITS = "cache_hits"
"""Counter: inputs whose answer was kept."""
CACHE_MISSES = "cache_misses"
"""Counter: inputs that were looked for and whose answer was not kept."""
CLOUD_CALLS = "cloud_calls"
"""Counter: requests sent to the cloud server, repeats included."""
CLOUD_FAILURES = "cloud_failures"
"""Counter: calls that brought no answer in time, sent or not."""

INSTALLED = "installed"
"""Counter: how often the release began to answer, or to be scored: it is installed."""
INSTALL_FAILED = "install_failed."
"""Counters of this prefix: installations of the release that failed, by the kind of error (`golden_error`)."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
_METRIC = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Sketch(Value, kw_only=True):
    """Counts between fixed edges, which the bundle names: drift is told from these, never from inputs.

    `counts[0]` is of values below `edges[0]`, the last of those at or above the last edge.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError unless the edges ascend and there is one count more than edges."""
        if not 1 <= len(self.edges) < MOST_SKETCH_BINS or len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges and {len(self.counts)} counts")
        if any(not low < high for low, high in pairwise(self.edges)):
            raise ValueError("edges must ascend")
        _check_counts("sketch", self.counts)


class Key(NamedTuple):
    """What makes an envelope one and the same: a second one with this key is dropped."""

    device: str
    boot: str
    sequence: int


class Envelope(Value, kw_only=True):
    """One window of one device, with one variant of one release.

    `boot` is new for every start of the device, `sequence` counts its envelopes from 0. `release` is the SHA-256 of
    the bundle's manifest. `lost_windows` are earlier windows the device had to drop before it could send.
    """

    format_version: int = ENVELOPE_VERSION
    device: str
    boot: str
    sequence: int
    start_unix_ms: int
    end_unix_ms: int
    device_class: str
    release: str
    variant: str
    histograms: dict[str, Histogram] = {}
    counters: dict[str, int] = {}
    outcomes: dict[OutcomeKind, int] = {}
    crashes: int = 0
    """Ends of the inference process that were not asked for."""
    crash_loop: bool = False
    """The device gave the release up and went back to the slot before."""
    signature_failures: int = 0
    """Files or metadata that a signature or signed digest refused."""
    lost_windows: int = 0
    sketches: dict[str, Sketch] = {}

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed or a limit is passed."""
        if self.format_version != ENVELOPE_VERSION:
            raise ValueError(f"format_version {self.format_version}, required {ENVELOPE_VERSION}")
        for name in ("device", "boot", "device_class", "variant"):
            check_identifier(name, getattr(self, name))
        check_digest("release", self.release)
        if not 0 <= self.start_unix_ms <= self.end_unix_ms <= LATEST_UNIX_MS:
            raise ValueError(f"window from {self.start_unix_ms} to {self.end_unix_ms}")
        if self.end_unix_ms - self.start_unix_ms > MOST_WINDOW_MS:
            raise ValueError(f"a window of {self.end_unix_ms - self.start_unix_ms} ms, at most {MOST_WINDOW_MS}")
        for names in (self.histograms, self.counters, self.sketches):
            if len(names) > MOST_SERIES:
                raise ValueError(f"{len(names)} series of one kind, at most {MOST_SERIES}")
            for name in names:
                check_metric(name)
        _check_counts("counter", tuple(self.counters.values()))
        _check_counts("outcome", tuple(self.outcomes.values()))
        _check_counts("count", (self.sequence, self.crashes, self.signature_failures, self.lost_windows))

    @property
    def key(self) -> Key:
        """The key of idempotence."""
        return Key(self.device, self.boot, self.sequence)


def encode_envelope(envelope: Envelope) -> bytes:
    """Return an envelope as JSON. Raises TelemetryError where it is larger than `MOST_BYTES`."""
    data = msgspec.json.encode(envelope)
    _check_size(data)
    return data


def decode_envelope(data: bytes) -> Envelope:
    """Return the envelope in JSON text. Raises TelemetryError where it is none, or larger than `MOST_BYTES`."""
    _check_size(data)
    try:
        return msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TelemetryError(
            f"the envelope cannot be read: {error}",
            required="the JSON that docs/reference/telemetry describes",
            next_step="update the device's edgewise, or correct its exporter",
        ) from error


def check_identifier(name: str, value: str) -> None:
    """Raise ValueError unless `value` can name a device, boot, class or variant."""
    if _IDENTIFIER.fullmatch(value) is None:
        raise ValueError(f"{name} {value[:40]!r}, required 1 to 128 of A-Z a-z 0-9 . _ : @ + -")


def check_metric(value: str) -> None:
    """Raise ValueError unless `value` can name a metric."""
    if _METRIC.fullmatch(value) is None:
        raise ValueError(f"metric {value[:40]!r}, required 1 to 64 of a-z 0-9 _ . starting with a letter")


def check_digest(name: str, value: str) -> None:
    """Raise ValueError unless `value` is a SHA-256 in lower-case hexadecimal."""
    if _DIGEST.fullmatch(value) is None:
        raise ValueError(f"{name} {value[:70]!r}, required the 64 hexadecimal digits of a SHA-256")


def _check_counts(name: str, counts: tuple[int, ...]) -> None:
    if any(not 0 <= count <= MOST_COUNT for count in counts):
        raise ValueError(f"a {name} is negative or above 2**53")


def _check_size(data: bytes) -> None:
    if len(data) > MOST_BYTES:
        raise TelemetryError(
            f"an envelope of {len(data)} bytes",
            required=f"at most {MOST_BYTES}",
            next_step="send shorter windows, or fewer series",
        )
