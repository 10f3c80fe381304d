"""Adds up what devices report. Whole numbers and exact histograms: any order and any grouping gives the same totals."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.histogram import Histogram, merge
from edgewise.contracts.telemetry import Envelope, Sketch

OUTCOME = "outcome."
"""Outcomes are counters of this prefix."""
SERIES_MS = 5 * 60_000
"""The time that one row of a series is of."""


class Totals(Value, kw_only=True):
    """Sums over envelopes. Sketches of the same name and other edges are told apart by their edges."""

    envelopes: int = 0
    histograms: dict[str, Histogram] = msgspec.field(default_factory=dict)
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    crashes: int = 0
    crash_loops: int = 0
    """Envelopes that reported one."""
    signature_failures: int = 0
    lost_windows: int = 0
    sketches: dict[str, tuple[Sketch, ...]] = msgspec.field(default_factory=dict)


def totals_of(envelope: Envelope) -> Totals:
    """Return the totals of one envelope."""
    outcomes = {f"{OUTCOME}{kind}": count for kind, count in envelope.outcomes.items()}
    return Totals(
        envelopes=1,
        histograms=envelope.histograms,
        counters=envelope.counters | outcomes,
        crashes=envelope.crashes,
        crash_loops=int(envelope.crash_loop),
        signature_failures=envelope.signature_failures,
        lost_windows=envelope.lost_windows,
        sketches={name: (sketch,) for name, sketch in envelope.sketches.items()},
    )


def add(first: Totals, second: Totals) -> Totals:
    """Return the sum. Raises ValueError where two histograms of one name cannot be merged exactly."""
    histograms = dict(first.histograms)
    for name, histogram in second.histograms.items():
        histograms[name] = merge(histograms[name], histogram) if name in histograms else histogram
    return Totals(
        envelopes=first.envelopes + second.envelopes,
        histograms=histograms,
        counters=_add_counts(first.counters, second.counters),
        crashes=first.crashes + second.crashes,
        crash_loops=first.crash_loops + second.crash_loops,
        signature_failures=first.signature_failures + second.signature_failures,
        lost_windows=first.lost_windows + second.lost_windows,
        sketches=_add_sketches(first.sketches, second.sketches),
    )


def encode(totals: Totals) -> bytes:
    """Return totals as they are kept."""
    return msgspec.json.encode(totals, order="deterministic")


def decode(data: bytes) -> Totals:
    """Return totals that were kept."""
    return msgspec.json.decode(data, type=Totals)


def _add_counts(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in first.keys() | second.keys()}


def _add_sketches(
    first: Mapping[str, tuple[Sketch, ...]], second: Mapping[str, tuple[Sketch, ...]]
) -> dict[str, tuple[Sketch, ...]]:
    found = {}
    for name in first.keys() | second.keys():
        counts: dict[tuple[float, ...], tuple[int, ...]] = {}
        for each in (*first.get(name, ()), *second.get(name, ())):
            known = counts.get(each.edges, (0,) * len(each.counts))
            counts[each.edges] = tuple(one + other for one, other in zip(known, each.counts, strict=True))
        found[name] = tuple(Sketch(edges=edges, counts=counts[edges]) for edges in sorted(counts))
    return found
