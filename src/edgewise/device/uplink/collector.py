"""What happens in a window of a running device, gathered until it becomes envelopes.

A window is timed by a clock that does not jump, and dated at its end: a clock that was set meanwhile makes no window
of years, nor one that ends before it begins.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Name
from edgewise.contracts.histogram import Histogram, merge
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import (
    LATEST_UNIX_MS,
    MOST_SERIES,
    MOST_WINDOW_MS,
    Envelope,
    Sketch,
    check_digest,
    check_identifier,
    check_metric,
)
from edgewise.device.uplink.dating import Dating
from edgewise.device.uplink.merging import added


def new_boot() -> str:
    """Return a name for this start of the device, as no other start has."""
    return secrets.token_hex(16)


class Reporter(Value, kw_only=True):
    """In whose name envelopes are written; `boot` is new for every start."""

    device: Name
    device_class: Name
    boot: Name


class Happened(Value, kw_only=True):
    """What was counted in a window, in the fields of an envelope."""

    histograms: dict[str, Histogram] = msgspec.field(default_factory=dict)
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    outcomes: dict[OutcomeKind, int] = msgspec.field(default_factory=dict)
    crashes: int = 0
    crash_loop: bool = False
    signature_failures: int = 0
    sketches: dict[str, Sketch] = msgspec.field(default_factory=dict)


NOTHING = Happened()


class Window:
    """What one variant of one release did since it was last taken; any thread may add to it."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._histograms: dict[str, Histogram] = {}
        self._sketches: dict[str, Sketch] = {}
        self._counters: dict[str, int] = {}
        self._outcomes: dict[OutcomeKind, int] = {}
        self._crashes = self._signature_failures = 0
        self._crash_loop = False

    def outcome(self, kind: OutcomeKind, by: int = 1) -> None:
        """Count how an inference ended."""
        with self._lock:
            self._outcomes[kind] = self._outcomes.get(kind, 0) + by

    def count(self, name: str, by: int = 1) -> None:
        """Count something, `contracts.telemetry.REQUESTS` say. Raises ValueError where the name is no metric."""
        with self._lock:
            _check_new(name, self._counters)
            self._counters[name] = self._counters.get(name, 0) + by

    def histogram(self, name: str, histogram: Histogram) -> None:
        """Add values, as a meter drains them; an empty one adds nothing.

        Raises ValueError where the name is no metric, or the zero threshold is another than before.
        """
        if not histogram.count:
            return
        with self._lock:
            _check_new(name, self._histograms)
            known = self._histograms.get(name)
            self._histograms[name] = histogram if known is None else merge(known, histogram)

    def sketch(self, name: str, sketch: Sketch) -> None:
        """Add counts between edges. Raises ValueError where the name is no metric, or the edges are others."""
        with self._lock:
            _check_new(name, self._sketches)
            known = self._sketches.get(name)
            self._sketches[name] = sketch if known is None else added(known, sketch)

    def crashed(self, by: int = 1) -> None:
        """Count ends of the inference process that were not asked for."""
        with self._lock:
            self._crashes += by

    def crash_loop(self) -> None:
        """Note that the device gave this release up."""
        with self._lock:
            self._crash_loop = True

    def signature_failed(self, by: int = 1) -> None:
        """Count files or metadata that a signature or a signed digest refused."""
        with self._lock:
            self._signature_failures += by

    def take(self) -> Happened:
        """Return what was added since the last call, and begin anew."""
        with self._lock:
            found = Happened(
                histograms=self._histograms,
                counters=self._counters,
                outcomes=self._outcomes,
                crashes=self._crashes,
                crash_loop=self._crash_loop,
                signature_failures=self._signature_failures,
                sketches=self._sketches,
            )
            self._clear()
        return found


class Collector:
    """Windows of all variants that ran, and the envelopes they become; any thread may use it."""

    def __init__(self, reporter: Reporter, dating: Dating) -> None:
        """Begin a window now."""
        self._reporter = reporter
        self._dating = dating
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], Window] = {}
        self._current: tuple[str, str] | None = None
        self._began_ms = dating.steady_ms()
        self._sequence = 0

    def window(self, release: str, variant: str) -> Window:
        """Return where to add what a variant did; it stays the same one. `release`: SHA-256 of the manifest."""
        check_digest("release", release)
        check_identifier("variant", variant)
        with self._lock:
            return self._windows.setdefault((release, variant), Window())

    def running(self, release: str, variant: str) -> Window:
        """Return the window of what runs now; it is reported also where nothing happened: silence is not idleness."""
        window = self.window(release, variant)
        self._current = release, variant
        return window

    def drain(self) -> list[Envelope]:
        """Return what happened since the last call, an envelope for each variant, and begin a new window."""
        with self._lock:
            now_ms, end_ms = self._dating.steady_ms(), min(max(self._dating.now_ms(), 0), LATEST_UNIX_MS)
            start_ms = max(end_ms - min(max(now_ms - self._began_ms, 0), MOST_WINDOW_MS), 0)
            found = []
            for subject, window in self._windows.items():
                happened = window.take()
                if happened != NOTHING or subject == self._current:
                    found.append(self._envelope(subject, happened, start_ms, end_ms))
            self._began_ms = now_ms
        return found

    def _envelope(self, subject: tuple[str, str], happened: Happened, start_ms: int, end_ms: int) -> Envelope:
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Envelope(
            device=self._reporter.device,
            boot=self._reporter.boot,
            sequence=sequence,
            start_unix_ms=start_ms,
            end_unix_ms=end_ms,
            device_class=self._reporter.device_class,
            release=subject[0],
            variant=subject[1],
            histograms=happened.histograms,
            counters=happened.counters,
            outcomes=happened.outcomes,
            crashes=happened.crashes,
            crash_loop=happened.crash_loop,
            signature_failures=happened.signature_failures,
            sketches=happened.sketches,
        )


def _check_new(name: str, known: Mapping[str, object]) -> None:
    """Raise ValueError for a name that an envelope would refuse, when it is first used."""
    if name not in known:
        check_metric(name)
        if len(known) >= MOST_SERIES:
            raise ValueError(f"{name} would be one series more than the {MOST_SERIES} of an envelope")
