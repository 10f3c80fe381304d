"""What devices told of their inputs, added up for the next calibration."""

from __future__ import annotations

from collections.abc import Iterable

from edgewise.contracts.capture import EDGES, MARGIN, MARGIN_EDGES, NOISE, PREFIX, REPORTS, FleetCapture
from edgewise.contracts.telemetry import Sketch
from edgewise.fleet.ingest_totals import Totals


def captured(found: Iterable[Totals], *, product: str, release: str, start_ms: int, stop_ms: int) -> FleetCapture:
    """Return the sum of the sketches of inputs; those with other edges than `contracts.capture` are left out."""
    counts: dict[str, tuple[int, ...]] = {}
    reports = noise = 0
    for totals in found:
        reports += totals.counters.get(REPORTS, 0)
        noise += totals.counters.get(NOISE, 0)
        for name, sketches in totals.sketches.items():
            edges = MARGIN_EDGES if name == MARGIN else EDGES
            for each in sketches if name.startswith(PREFIX) else ():
                if each.edges == edges:
                    known = counts.get(name, (0,) * len(each.counts))
                    counts[name] = tuple(one + other for one, other in zip(known, each.counts, strict=True))
    return FleetCapture(
        product=product,
        release=release,
        start_ms=start_ms,
        stop_ms=stop_ms,
        reports=reports,
        noise=noise,
        sketches={
            name: Sketch(edges=MARGIN_EDGES if name == MARGIN else EDGES, counts=counts[name])
            for name in sorted(counts)
        },
    )
