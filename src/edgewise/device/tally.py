"""Counts outcomes and events for telemetry."""

from __future__ import annotations

import threading

from edgewise.contracts.outcome import OutcomeKind


class Tally:
    """Counts since the last `drain`; any thread may use it."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._lock = threading.Lock()
        self._outcomes = dict.fromkeys(OutcomeKind, 0)
        self._counters: dict[str, int] = {}

    def outcome(self, kind: OutcomeKind) -> None:
        """Count one answer."""
        with self._lock:
            self._outcomes[kind] += 1

    def event(self, name: str) -> None:
        """Count one of what the counter `name` of telemetry counts."""
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + 1

    def drain(self) -> tuple[dict[OutcomeKind, int], dict[str, int]]:
        """Return outcomes and counters since the last call, none that are 0: a delta."""
        with self._lock:
            outcomes, counters = self._outcomes, self._counters
            self._outcomes, self._counters = dict.fromkeys(OutcomeKind, 0), {}
        return {kind: count for kind, count in outcomes.items() if count}, counters
