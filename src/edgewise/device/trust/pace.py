"""How slow a server may be (slow retrieval attack: the TUF specification, section 1.5.2)."""

from __future__ import annotations

from collections.abc import Callable

from edgewise.contracts.base import Value
from edgewise.errors import SlowRetrievalError


class Pace(Value):
    """Limits of one transfer.

    `grace_s` seconds plus one second for every `bytes_per_s` received: a transfer that falls behind is
    given up, so that one of n bytes is over after at most `grace_s + n / bytes_per_s` seconds, however its
    bytes are spread. `idle_s` bounds each wait, `total_s` the whole, headers and redirects included.
    """

    grace_s: float = 20.0
    bytes_per_s: float = 2048.0
    idle_s: float = 15.0
    total_s: float = 6 * 3600.0


class Guard:
    """One transfer under its limits. `clock` is monotonic, in seconds."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        """Start the clock of the transfer."""
        self._pace = pace
        self._clock = clock
        self._start = clock()
        self._received = 0

    def count(self, received: int) -> None:
        """Take note of `received` more bytes."""
        self._received += received

    def patience_s(self) -> float:
        """Return how long to wait for the next byte. Raises SlowRetrievalError where there is no time left."""
        elapsed = self._clock() - self._start
        allowed = min(self._pace.total_s, self._pace.grace_s + self._received / self._pace.bytes_per_s)
        if elapsed >= allowed:
            raise self.too_slow()
        return min(self._pace.idle_s, allowed - elapsed)

    def too_slow(self) -> SlowRetrievalError:
        """Return the error that says how far it came in which time."""
        elapsed = self._clock() - self._start
        return SlowRetrievalError(
            f"{self._received} bytes came in {elapsed:.1f} s",
            required=f"{self._pace.bytes_per_s:g} bytes/s after {self._pace.grace_s:g} s, no wait over "
            f"{self._pace.idle_s:g} s, all within {self._pace.total_s:g} s",
            next_step="try again later or from another mirror; what came is kept and resumed",
        )
