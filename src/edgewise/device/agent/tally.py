"""What happened between two reports, counted under one lock, and handed over as windows: one a release and variant."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from edgewise.contracts.base import Value
from edgewise.contracts.histogram import Histogram, merge
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS
from edgewise.errors import DigestError, DisagreementError, EdgewiseError, MixedMetadataError, SignatureError

MOST_WINDOWS = 64
"""Windows that wait to be handed over; of more the oldest are dropped and counted."""
SIGNATURE_FAILURES = (SignatureError, DigestError, DisagreementError, MixedMetadataError)
"""Refusals by a signature or a signed digest."""

UnixMs = Callable[[], int]


class Window(Value, kw_only=True):
    """What happened with one variant of one release; the fields are those of a telemetry envelope."""

    release: str
    """SHA-256 (hex) of the bundle's manifest."""
    variant: str
    start_unix_ms: int
    end_unix_ms: int
    histograms: Mapping[str, Histogram] = {}
    counters: Mapping[str, int] = {}
    outcomes: Mapping[OutcomeKind, int] = {}
    crashes: int = 0
    crash_loop: bool = False
    signature_failures: int = 0
    lost_windows: int = 0


class Tally:
    """Counts; any thread may call it."""

    def __init__(self, clock: UnixMs) -> None:
        """Begin with nothing, and no release."""
        self._clock = clock
        self._lock = threading.Lock()
        self._release = self._variant = ""
        self._start = clock()
        self._counters: Counter[str] = Counter()
        self._outcomes: Counter[OutcomeKind] = Counter()
        self._crashes = self._signature_failures = self._lost = 0
        self._latency = Histogram()
        self._windows: list[Window] = []
        self.total_outcomes: Counter[OutcomeKind] = Counter()
        """Since the process began."""
        self.total_refusals: Counter[str] = Counter()
        """By kind of error, since the process began."""
        self.total_latency = Histogram()

    def answered(self, outcome: Outcome) -> None:
        """Count an inference."""
        with self._lock:
            self._counters[REQUESTS] += 1
            self._outcomes[outcome.kind] += 1
            self.total_outcomes[outcome.kind] += 1

    def count(self, name: str, by: int = 1) -> None:
        """Count something by the name of a counter."""
        with self._lock:
            self._counters[name] += by

    def crashed(self) -> None:
        """Count an end of the process that was not asked for."""
        with self._lock:
            self._crashes += 1

    def refused(self, error: EdgewiseError) -> None:
        """Count a refusal by its kind."""
        kind = type(error).__name__
        with self._lock:
            self.total_refusals[kind] += 1
            self._counters[counter_of(kind)] += 1
            self._signature_failures += isinstance(error, SIGNATURE_FAILURES)

    def about(self, release: str, variant: str, *, crash_loop: bool = False, signature_failures: int = 0) -> None:
        """Report of a release that this device does not run, that it was given up or refused."""
        now = self._clock()
        with self._lock:
            self._add(
                Window(
                    release=release,
                    variant=variant,
                    start_unix_ms=now,
                    end_unix_ms=now,
                    crash_loop=crash_loop,
                    signature_failures=signature_failures,
                )
            )

    def measured(self, latency: Histogram) -> None:
        """Add latencies (ms) of the release that runs."""
        with self._lock:
            self._latency = merge(self._latency, latency)
            self.total_latency = merge(self.total_latency, latency)

    def begin(self, release: str, variant: str) -> None:
        """Count for another release from now on."""
        with self._lock:
            self._close()
            self._release, self._variant = release, variant

    def windows(self) -> list[Window]:
        """Close the window and return all that were not handed over yet."""
        with self._lock:
            self._close()
            found, self._windows = self._windows, []
            return found

    def _close(self) -> None:
        now = self._clock()
        if not self._release:
            return  # what was counted waits for a release it can be reported with
        counters = {REQUESTS: 0, **self._counters}
        self._add(
            Window(
                release=self._release,
                variant=self._variant,
                start_unix_ms=min(self._start, now),
                end_unix_ms=now,
                histograms={LATENCY_MS: self._latency} if self._latency.count else {},
                counters=counters,
                outcomes=dict(self._outcomes),
                crashes=self._crashes,
                signature_failures=self._signature_failures,
                lost_windows=self._lost,
            )
        )
        self._start, self._latency = now, Histogram()
        self._counters.clear()
        self._outcomes.clear()
        self._crashes = self._signature_failures = self._lost = 0

    def _add(self, window: Window) -> None:
        self._windows.append(window)
        while len(self._windows) > MOST_WINDOWS:
            self._windows.pop(0)
            self._lost += 1


def counter_of(kind: str) -> str:
    """Return the counter of an error's kind.

    >>> counter_of("RollbackError")
    'refused.rollback_error'
    """
    return "refused." + re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
