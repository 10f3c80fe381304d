"""Ends the agent where a model in its own process never comes back: no thread can end another one's operator.

A service manager starts it again (`Restart=always`); the next start tells why, and goes back to the bundle before
where that has happened too often. A bundle in shadow that hung is given up at once: it answers nobody, and took a core.
Models in worker processes are ended by their workers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edgewise.device.agent import ending
from edgewise.device.agent.ending import Hung
from edgewise.device.agent.serving import Model, Serving
from edgewise.device.session import BoundSession

TOLD_S = 10.0
"""An execution looks whether it was told to end between two operators; one that still runs so long after never will."""
LOOK_S = 1.0
STATUS = 70
"""Of the process, EX_SOFTWARE in sysexits.h."""
_LAST_WORDS_S = 5.0

log = logging.getLogger("edgewise.agent")


class _Running(NamedTuple):
    execution: int
    seconds: float
    told_s: float


class Hangs:
    """Finds executions that do not end. It has no clock: it is told how much time the process was given."""

    def __init__(self, most_s: float) -> None:
        """Take how long an execution without a deadline may take."""
        self._most_s = most_s
        self._running: dict[int, _Running] = {}

    def look(self, sessions: Iterable[BoundSession], passed_s: float) -> str:
        """Return what one of them has hung in, or nothing; `passed_s` since the last look."""
        before, self._running = self._running, {}
        for session in sessions:
            execution = session.executing
            if not execution:
                continue
            last = before.get(id(session))
            if last is None or last.execution != execution:
                last = _Running(execution, -passed_s, -passed_s)  # it began between the two looks
            told_s = last.told_s + passed_s if session.is_stopped else 0.0
            now = self._running[id(session)] = _Running(execution, last.seconds + passed_s, told_s)
            if now.told_s >= TOLD_S:
                return f"an inference still ran {now.told_s:.0f} s after it was told to end at its deadline"
            if now.seconds >= self._most_s:
                return f"an inference without a deadline took more than {self._most_s:g} s"
        return ""


class HangWatch:
    """A thread that looks once a second, and ends the process."""

    def __init__(self, folder: Path, serving: Serving, *, most_s: float) -> None:
        """Take where the end is noted, and what holds the models."""
        self._folder = folder
        self._serving = serving
        self._most_s = most_s
        self._ended = threading.Event()

    def start(self) -> None:
        """Look from now on."""
        threading.Thread(target=self._look, name="edgewise-hangs", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        begun = last = time.monotonic()
        answering, scoring = Hangs(self._most_s), Hangs(self._most_s)
        while not self._ended.wait(LOOK_S):
            now = time.monotonic()
            # A process that was frozen, or a device that was starved, has not hung for all that time.
            passed_s, last = min(now - last, 2 * LOOK_S), now
            for hangs, model in ((answering, self._serving.model), (scoring, self._serving.scored)):
                reason = "" if model is None else hangs.look(model.sessions(), passed_s)
                if model is not None and reason:
                    self._end(model, reason, now - begun, shadow=hangs is scoring)

    def _end(self, model: Model, reason: str, lived_s: float, *, shadow: bool) -> None:
        """Note why, and end; a disk or a log that hangs too must not keep the process."""
        slot = model.slot
        reason = f"{slot.release.version}{' in shadow' if shadow else ''}: {reason}"
        hung = Hung(sha256=slot.sha256, release=slot.release.digest, reason=reason, shadow=shadow)
        words = threading.Thread(target=self._say, args=(hung, lived_s), daemon=True)
        words.start()
        words.join(_LAST_WORDS_S)
        os._exit(STATUS)

    def _say(self, hung: Hung, lived_s: float) -> None:
        ending.note_hung(self._folder, hung, lived_s)
        log.critical("ended: a model hangs", extra={"reason": hung.reason})
