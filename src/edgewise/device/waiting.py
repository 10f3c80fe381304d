"""When a device asks again: never all devices at once, and longer after each failure."""

from __future__ import annotations

import math

POLL_S = 300.0
MOST_WAIT_S = 6 * 3600.0


def wait_s(
    failures: int, retry_after_s: float | None, *, interval_s: float = POLL_S, jitter: float, uniform: float
) -> float:
    """Return how long to wait until the next try: longer after each failure, never all devices at once.

    `uniform` is random in [0, 1). A server's Retry-After is the least that is waited.

    >>> wait_s(0, None, interval_s=60, jitter=0.5, uniform=0.5)
    75.0
    """
    interval = min(MOST_WAIT_S, math.ldexp(interval_s, min(failures, 16)))
    return max(interval, min(retry_after_s or 0.0, MOST_WAIT_S)) * (1 + jitter * uniform)
