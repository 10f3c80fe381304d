"""What is counted: for telemetry, by release and variant, and for the status, since the process began."""

from __future__ import annotations

import re
import threading
from collections import Counter

from edgewise.contracts.histogram import Histogram, merge
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import INSTALL_FAILED, INSTALLED, LATENCY_MS, REQUESTS
from edgewise.device.agent.measured import Measured
from edgewise.device.capture.sketches import Report
from edgewise.device.uplink.collector import Collector, Window
from edgewise.errors import DigestError, DisagreementError, EdgewiseError, MixedMetadataError, SignatureError

SIGNATURE_FAILURES = (SignatureError, DigestError, DisagreementError, MixedMetadataError)
"""Refusals by a signature or a signed digest."""
UNKNOWN_VARIANT = "unknown"
"""Reported of a release whose bundle never came far enough to name its variant."""


class Counts:
    """Counts; any thread may call it."""

    def __init__(self, collector: Collector) -> None:
        """Begin with nothing, and no release: what happens before the first one is reported with it."""
        self._collector = collector
        self._lock = threading.Lock()
        self._window = Window()
        self._release = self._variant = ""
        self.outcomes: Counter[OutcomeKind] = Counter()
        self.refusals: Counter[str] = Counter()
        """By kind of error."""
        self.latency = Histogram()
        """Milliseconds."""

    def running(self, release: str, variant: str) -> None:
        """Count for this release (SHA-256 of its manifest) and variant from now on."""
        self.installed(release, variant)
        with self._lock:
            before, self._window = self._window, self._collector.running(release, variant)
            is_first = not self._release
            self._release, self._variant = release, variant
            if not is_first:
                return
            waiting = before.take()
        for name, count in waiting.counters.items():
            self._window.count(name, count)
        for kind, count in waiting.outcomes.items():
            self._window.outcome(kind, count)
        self._window.crashed(waiting.crashes)
        self._window.signature_failed(waiting.signature_failures)

    def measured(self, measured: Measured, variant: str) -> None:
        """Add what one variant of the release that runs did."""
        with self._lock:
            window = self._window if variant == self._variant else self._collector.window(self._release, variant)
            self.latency = merge(self.latency, measured.histograms.get(LATENCY_MS, Histogram()))
            self.outcomes.update(measured.outcomes)
        for name, histogram in measured.histograms.items():
            window.histogram(name, histogram)
        for name, sketch in measured.sketches.items():
            window.sketch(name, sketch)
        for kind, count in measured.outcomes.items():
            window.outcome(kind, count)
        for name, count in measured.counters.items():
            window.count(name, count)
        if measured.outcomes:
            window.count(REQUESTS, sum(measured.outcomes.values()))

    def count(self, name: str, by: int) -> None:
        """Count something for what runs, by the name of a counter."""
        self._window.count(name, by)

    def captured(self, report: Report) -> None:
        """Report sketches of inputs with what runs."""
        with self._lock:
            window = self._window
        for name, sketch in report.sketches.items():
            window.sketch(name, sketch)
        for name, count in report.counters.items():
            window.count(name, count)

    def turned_away(self) -> None:
        """Count a request that came to no inference."""
        with self._lock:
            self.outcomes[OutcomeKind.REFUSED] += 1
            window = self._window
        window.outcome(OutcomeKind.REFUSED)
        window.count(REQUESTS)

    def crashed(self) -> None:
        """Count an end of the process that was not asked for."""
        self._window.crashed()

    def refused(self, error: EdgewiseError, release: str | None = None) -> None:
        """Count a refusal, by its kind, for what runs; one by a signature also for the release that was refused."""
        kind = type(error).__name__
        with self._lock:
            self.refusals[kind] += 1
            window = self._window
        window.count(f"refused.{snake(kind)}")
        if isinstance(error, SIGNATURE_FAILURES):
            window.signature_failed()
            if release is not None:
                self._collector.window(release, UNKNOWN_VARIANT).signature_failed()

    def installed(self, release: str, variant: str) -> None:
        """Report that a release answers, or is scored, from now on."""
        self._collector.window(release, variant).count(INSTALLED)

    def not_installed(self, release: str, error: EdgewiseError) -> None:
        """Report that a release could not be installed, and by which kind of error."""
        name = f"{INSTALL_FAILED}{snake(type(error).__name__)}"
        self._collector.window(release, UNKNOWN_VARIANT).count(name)

    def given_up(self, release: str) -> None:
        """Report that a release crashed at every start."""
        self._collector.window(release, UNKNOWN_VARIANT).crash_loop()


def snake(kind: str) -> str:
    """Return an error's kind as counters name it.

    >>> snake("RollbackError")
    'rollback_error'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
