"""What time it is, on a device whose clock may be wrong: no battery behind it, no network yet, set by hand.

Until a server has said the time, the clock is believed. Afterwards it is believed as long as it agrees with the server
to a minute, and otherwise the server's time goes on by the clock that never jumps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

Milliseconds = Callable[[], int]
TOLERANCE_MS = 60_000


def system_ms() -> int:
    """Return Unix time."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Return a time that never jumps and goes on while the device sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Dating:
    """The time that windows are dated with, of one process."""

    def __init__(self, wall: Milliseconds = system_ms, steady: Milliseconds = steady_ms) -> None:
        """Believe the clock for now."""
        self._wall, self._steady = wall, steady
        self._anchor: int | None = None
        """The server's time less the steady one."""
        self._offset = self.now_ms() - self.steady_ms()

    @property
    def is_told(self) -> bool:
        """Whether a server has said the time since this process began."""
        return self._anchor is not None

    def now_ms(self) -> int:
        """Return Unix time, as far as it is known."""
        wall = self._wall()
        if self._anchor is None:
            return wall
        told = self._steady() + self._anchor
        return wall if abs(wall - told) <= TOLERANCE_MS else told

    def steady_ms(self) -> int:
        """Return the time that never jumps."""
        return self._steady()

    def told(self, date: str) -> None:
        """Take the Date header of a server's answer; one that is no date says nothing."""
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            self._anchor = round(parsedate_to_datetime(date).timestamp() * 1000) - self._steady()

    def moved_ms(self) -> int:
        """Return by how much what was dated since the last call, or before, has to be moved; 0 within a minute."""
        moved = self.now_ms() - self._steady() - self._offset
        if abs(moved) <= TOLERANCE_MS:
            return 0
        self._offset += moved
        return moved
