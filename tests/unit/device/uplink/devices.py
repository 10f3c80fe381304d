"""A device's clock that tests move, and its windows."""

from __future__ import annotations

from random import Random

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS, Envelope
from edgewise.device.uplink.dating import Dating

RELEASE = "a" * 64
NOW_MS = 1_795_000_000_000


class Clock:
    """Unix time and the time that never jumps, both set by the test."""

    def __init__(self, wall_ms: int = NOW_MS) -> None:
        self.wall_ms, self.steady_ms = wall_ms, 1_000
        self.dating = Dating(lambda: self.wall_ms, lambda: self.steady_ms)

    def advance(self, by_ms: int) -> None:
        self.wall_ms += by_ms
        self.steady_ms += by_ms


def latencies(sequence: int, count: int = 3) -> list[float]:
    draw = Random(sequence)  # noqa: S311 - latencies, no secret
    return [draw.lognormvariate(0, 0.5) for _ in range(count)]


def window(
    sequence: int,
    *,
    device: str = "device-1",
    boot: str = "boot-1",
    variant: str = "int8",
    start_ms: int | None = None,
    lasts_ms: int = 300_000,
    values: int = 3,
) -> Envelope:
    """Return the window of one sequence number, right after the one before."""
    start = NOW_MS + sequence * lasts_ms if start_ms is None else start_ms
    return Envelope(
        device=device,
        boot=boot,
        sequence=sequence,
        start_unix_ms=start,
        end_unix_ms=start + lasts_ms,
        device_class="pi5",
        release=RELEASE,
        variant=variant,
        histograms={LATENCY_MS: histogram_of(latencies(sequence, values))},
        counters={REQUESTS: 1},
        outcomes={OutcomeKind.LOCAL: 1},
    )
