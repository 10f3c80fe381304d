"""Counts outcomes and events for telemetry."""

from __future__ import annotations

from edgewise.contracts.outcome import OutcomeKind


class Tally:
    """Counts since the last `drain`; for the thread that infers."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._outcomes = dict.fromkeys(OutcomeKind, 0)
        self._counters: dict[str, int] = {}

    def outcome(self, kind: OutcomeKind) -> None:
        """Count one answer."""
        self._outcomes[kind] += 1

    def event(self, name: str, count: int = 1) -> None:
        """Count what the counter `name` of telemetry counts."""
        self._counters[name] = self._counters.get(name, 0) + count

    def drain(self) -> tuple[dict[OutcomeKind, int], dict[str, int]]:
        """Return outcomes and counters since the last call, none that are 0: a delta."""
        outcomes = {kind: count for kind, count in self._outcomes.items() if count}
        counters = {name: count for name, count in self._counters.items() if count}
        self._outcomes, self._counters = dict.fromkeys(OutcomeKind, 0), {}
        return outcomes, counters
