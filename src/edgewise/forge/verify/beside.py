"""Run fp32 on a thread of its own while the caller runs the variant: with a core for each, in half of the time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

One = TypeVar("One")
Other = TypeVar("Other")


class Beside:
    """One thread, which lives as long as this does."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._thread = ThreadPoolExecutor(1)

    def both(self, one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
        """Return what both return; `one` runs on the thread. What either raises is raised when both have ended."""
        running = self._thread.submit(one)
        try:
            mine = other()
        finally:
            # A model that is still running must not meet the caller's next step.
            its = running.exception()
        if its is not None:
            raise its
        return running.result(), mine
