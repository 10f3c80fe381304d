"""Envelopes as devices send them."""

from __future__ import annotations

import time
from random import Random

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS, Envelope, Sketch

OLD = "a" * 64
NEW = "b" * 64


def envelope(
    device: str,
    sequence: int,
    *,
    boot: str = "boot-1",
    release: str = OLD,
    scale: float = 1.0,
    start_unix_ms: int | None = None,
    requests: int = 40,
) -> Envelope:
    """Return a window of one second with latencies of its own for each sequence number."""
    start = int(time.time() * 1000) - 2000 if start_unix_ms is None else start_unix_ms
    draw = Random(f"{device}/{sequence}")  # noqa: S311 - latencies, no secret
    values = [scale * draw.lognormvariate(0, 0.3) for _ in range(requests)]
    return Envelope(
        device=device,
        boot=boot,
        sequence=sequence,
        start_unix_ms=start,
        end_unix_ms=start + 1000,
        device_class="pi5",
        release=release,
        variant="int8",
        histograms={LATENCY_MS: histogram_of(values)},
        counters={REQUESTS: requests},
        outcomes={OutcomeKind.LOCAL: requests},
        crashes=int(sequence % 3 == 0),
        sketches={"margin": Sketch(edges=(0.0, 0.5), counts=(1, sequence % 7, 2))},
    )
