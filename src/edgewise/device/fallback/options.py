"""What an application may declare about fallbacks. Everything is off until it is declared."""

from __future__ import annotations

from edgewise.contracts.base import Value
from edgewise.device.fallback.conservative import Conservative

RESERVE_SHARE = 0.1


class FallbackOptions(Value, kw_only=True):
    """The rungs of one runtime.

    `reserve_ms` of the deadline, at most a tenth of it, are kept for the rung that answers after a local execution
    that was cut, or after a cloud server that did not answer.
    """

    reserve_ms: float = 1.0
    conservative: Conservative | None = None

    def reserved_ms(self, deadline_ms: float) -> float:
        """Return what is kept of a deadline."""
        return min(self.reserve_ms, RESERVE_SHARE * deadline_ms)
