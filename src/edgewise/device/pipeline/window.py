"""The 95th percentile of the last durations: what a stage is expected to take."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

SIZE = 64
_SHARE = 0.95


class Window:
    """The last `SIZE` durations, in nanoseconds.

    >>> window = Window()
    >>> for duration in (5, 1, 3):
    ...     window.add(duration)
    >>> window.p95_ns
    5
    """

    def __init__(self) -> None:
        """Start knowing nothing: 0."""
        self._order: deque[int] = deque()
        self._sorted: list[int] = []
        self.p95_ns = 0
        """The value at rank ceil(0.95 n): the largest until there are 20. 0 where nothing is known."""

    def add(self, duration_ns: int) -> None:
        """Take one in, and the oldest out where there are enough."""
        if len(self._order) == SIZE:
            self._drop()
        self._order.append(duration_ns)
        insort(self._sorted, duration_ns)
        self._rank()

    def forget(self) -> None:
        """Take the oldest out: a figure that turns work away is not confirmed by any more work, so it has to age."""
        if self._order:
            self._drop()
            self._rank()

    def _drop(self) -> None:
        del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def _rank(self) -> None:
        count = len(self._sorted)
        self.p95_ns = self._sorted[math.ceil(_SHARE * count) - 1] if count else 0
