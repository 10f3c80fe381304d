"""The time, as an argument: servers take `system_ms`, tests a function of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns milliseconds since 1970 in UTC."""


def system_ms() -> int:
    """Return the system's time in milliseconds."""
    return time.time_ns() // 1_000_000
