"""Ends an execution whose time is over, from a thread of its own.

The first of three levels of cancellation is between items (the pipeline's), the last is the end of the worker process.
This one is in between: the runtime looks at the flag between two operators, so that a single long one is not cut.
"""

from __future__ import annotations

import math
import threading
import time

from edgewise.device.session import BoundSession

_LONGEST_WAIT_S = 3600.0


class Watchdog:
    """Watches one execution at a time.

    Its thread starts at the first one, and is woken for another only where that is due before it would wake anyway.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed = False
        self._watched: BoundSession | None = None
        self._cut: BoundSession | None = None
        self._due = math.inf
        self._wakes = -math.inf

    def watch(self, session: BoundSession, seconds: float) -> None:
        """Cut the execution of `session` in `seconds`, unless it is released before."""
        due = time.monotonic() + seconds
        with self._changed:
            self._watched, self._due = session, due
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="edgewise-watchdog", daemon=True)
                self._thread.start()
            elif due < self._wakes:
                self._changed.notify()

    @property
    def has_cut(self) -> bool:
        """Whether what is watched was told to end."""
        return self._cut is not None

    def release(self) -> None:
        """Stop watching; a session that was cut can be run again."""
        with self._changed:
            self._watched = None
            if self._cut is not None:
                self._cut.allow()
                self._cut = None

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _loop(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._watched is not None and now >= self._due:
                    self._watched.stop()
                    self._watched, self._cut = None, self._watched
                wait_s = min(self._due - now, _LONGEST_WAIT_S) if self._watched is not None else _LONGEST_WAIT_S
                self._wakes = now + wait_s
                self._changed.wait(wait_s)
