"""How much of their deadlines the last items needed."""

from __future__ import annotations

from collections import deque

from edgewise.device.governor.decide import ENOUGH

MOST = 10.0
"""Stands for an item that had no time left at all."""


class Lateness:
    """Shares of the deadline of the last items, of one variant."""

    def __init__(self) -> None:
        """Start without items."""
        self._shares: deque[float] = deque(maxlen=ENOUGH)
        self.items = 0
        """Since the last `reset`."""

    def observe(self, share: float) -> None:
        """Note what one item needed of its deadline; from 1 on it missed it."""
        self._shares.append(min(share, MOST))
        self.items += 1

    def reset(self) -> None:
        """Forget: another variant answers."""
        self._shares.clear()
        self.items = 0

    @property
    def share(self) -> float | None:
        """What all but one of the last 16 stayed within: one item alone is chance. None before there are two."""
        return sorted(self._shares)[-2] if len(self._shares) > 1 else None
