"""Two windows become one: histograms and counts add up exactly, only the time in between is told less finely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from edgewise.contracts.histogram import merge
from edgewise.contracts.telemetry import Envelope, Sketch

MOST_MERGED_MS = 24 * 3600 * 1000
"""The server tells days apart by when a window began, so one of several days would move figures between them."""

_Name = TypeVar("_Name", bound=str)


def merged(first: Envelope, second: Envelope) -> Envelope | None:
    """Return both as one under the key of the first, or None where something would be told less exactly than before.

    That is: other releases, variants or classes, more than a day from end to end, two crash loops (an envelope can
    say one), sketches with other edges, or a limit of an envelope that would be passed.
    """
    if _subject(first) != _subject(second) or (first.crash_loop and second.crash_loop):
        return None
    start_ms = min(first.start_unix_ms, second.start_unix_ms)
    end_ms = max(first.end_unix_ms, second.end_unix_ms)
    if end_ms - start_ms > MOST_MERGED_MS:
        return None
    histograms, sketches = dict(first.histograms), dict(first.sketches)
    try:
        for name, histogram in second.histograms.items():
            histograms[name] = merge(histograms[name], histogram) if name in histograms else histogram
        for name, sketch in second.sketches.items():
            sketches[name] = added(sketches[name], sketch) if name in sketches else sketch
        return msgspec.structs.replace(
            first,
            start_unix_ms=start_ms,
            end_unix_ms=end_ms,
            histograms=histograms,
            counters=sums(first.counters, second.counters),
            outcomes=sums(first.outcomes, second.outcomes),
            crashes=first.crashes + second.crashes,
            crash_loop=first.crash_loop or second.crash_loop,
            signature_failures=first.signature_failures + second.signature_failures,
            lost_windows=first.lost_windows + second.lost_windows,
            sketches=sketches,
        )
    except ValueError:  # other edges, other zero thresholds, or a limit that the sum passes
        return None


def added(first: Sketch, second: Sketch) -> Sketch:
    """Return the sketch of the values of both. Raises ValueError where the edges differ."""
    if first.edges != second.edges:
        raise ValueError("sketches with different edges cannot be added")
    counts = tuple(one + other for one, other in zip(first.counts, second.counts, strict=True))
    return Sketch(edges=first.edges, counts=counts)


def sums(first: Mapping[_Name, int], second: Mapping[_Name, int]) -> dict[_Name, int]:
    """Return the counts of both, in a settled order."""
    return {name: first.get(name, 0) + second.get(name, 0) for name in sorted(first.keys() | second.keys())}


def _subject(envelope: Envelope) -> tuple[str, str, str, str]:
    return envelope.device, envelope.device_class, envelope.release, envelope.variant
