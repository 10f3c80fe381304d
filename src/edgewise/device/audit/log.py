"""Writes the log, in a thread of its own: no inference waits for a disk.

What was noted is on the disk (written, then fsync) a second later at the latest, and before `flush` and `close` return.
A power cut takes what came after the last fsync. Files are kept below a size; the oldest are taken away whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from edgewise.contracts.base import Value
from edgewise.contracts.outcome import Outcome
from edgewise.device.audit.chain import START, Entry, Header, line_of
from edgewise.device.audit.reading import read_file, segments_of
from edgewise.device.trust.writing import refused, sync_folder
from edgewise.errors import DataError, OutputError

LOCK = "lock"
MOST_WAITING = 4096
MOST_REASON = 300
_MOST_WAIT_S = 30.0
_LEAST_SEGMENT_BYTES = 4096


class AuditOptions(Value, kw_only=True):
    """How much is kept: `segments` files of at most `segment_bytes`; and how often the disk is asked to keep it."""

    segments: int = 8
    segment_bytes: int = 1 << 20
    sync_s: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a figure that cannot be."""
        if self.segments < 2 or self.segment_bytes < _LEAST_SEGMENT_BYTES or not 0 <= self.sync_s <= 60:
            raise ValueError(f"segments from 2, segment_bytes from {_LEAST_SEGMENT_BYTES}, sync_s from 0 to 60")


class Happening(NamedTuple):
    """What is noted beside outcomes, with the fields of one."""

    reason: str
    kind: None = None
    slack_ms: None = None
    variant: None = None
    bundle: None = None


Noted = Outcome | Happening


class AuditLog:
    """The one writer of a folder; any thread may note."""

    def __init__(
        self, folder: Path, options: AuditOptions | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Open a log, or begin one. Raises OutputError where the folder cannot be written, or has a writer already."""
        self._folder = folder
        self._options = options or AuditOptions()
        self._clock = clock
        self._waiting: deque[tuple[int, Noted]] = deque()
        self._lost = 0
        self._changed = threading.Condition()
        self._flushing = False
        self._closed = False
        self._file, self._segment, self._size = -1, 0, 0
        self._digest, self._number = START, 0
        self.problem = ""
        """Why the last write failed; empty where it did not."""
        self._lock = _locked(folder)
        try:
            self._resume()
        except (OSError, DataError) as error:
            os.close(self._lock)
            raise error if isinstance(error, DataError) else refused(folder, error) from error
        self._thread = threading.Thread(target=self._loop, name="edgewise-audit", daemon=True)
        self._thread.start()

    def tell(self, reason: str) -> None:
        """Keep what happened to the device itself, as `note` does."""
        self.note(Happening(reason))

    def note(self, outcome: Noted) -> None:
        """Keep an outcome. Never waits: where too many are waiting it is counted as lost, which the log will say."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                return
            self._waiting.append((round(self._clock() * 1000), outcome))
            if len(self._waiting) == 1:
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many outcomes the writer has not taken yet."""
        return len(self._waiting)

    def flush(self) -> None:
        """Return when what was noted before is on the disk, or `problem` says why not."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._flushing, _MOST_WAIT_S)

    def close(self) -> None:
        """Write what is left, and end."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_MOST_WAIT_S)
        for each in (self._file, self._lock):
            with contextlib.suppress(OSError):
                os.close(each)

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._flushing or self._closed)
                flushing, closed = self._flushing, self._closed
                noted, lost = list(self._waiting), self._lost
                self._waiting.clear()
                self._lost = 0
            if noted:
                self._keep(noted, lost)
            with self._changed:
                if flushing:
                    self._flushing = False
                    self._changed.notify_all()
                if closed:
                    return
                # Equal outcomes of the next moments become one entry, and one fsync.
                self._changed.wait_for(lambda: self._flushing or self._closed, self._options.sync_s)

    def _keep(self, noted: list[tuple[int, Noted]], lost: int) -> None:
        """Write outcomes; where that fails they are counted, and the count comes with the next entry."""
        before = (self._segment, self._digest, self._number, self._size)
        try:
            for entry in _merged(noted, self._number, lost):
                self._append(entry)
            os.fsync(self._file)
        except OSError as error:
            self.problem = f"{self._folder}: {error.strerror or error}"
            with self._changed:
                self._lost += len(noted) + lost
            with contextlib.suppress(OSError, DataError):
                self._undo(*before)
        else:
            self.problem = ""

    def _append(self, entry: Entry) -> None:
        line, digest = line_of(entry, self._digest)
        if self._size + len(line) > self._options.segment_bytes:
            os.fsync(self._file)
            self._begin(self._segment + 1)
            line, digest = line_of(entry, self._digest)
        _write(self._file, line)
        self._digest, self._number, self._size = digest, entry.number + 1, self._size + len(line)

    def _undo(self, segment: int, digest: str, number: int, size: int) -> None:
        """Cut off what a failed write left; where a new file was begun meanwhile, its whole lines stay."""
        if segment != self._segment:
            found = read_file(self._path(self._segment))
            digest, size = found.digest, found.good_bytes
            number = found.entries[-1].number + 1 if found.entries else self._number
        os.ftruncate(self._file, size)
        self._digest, self._number, self._size = digest, number, size

    def _resume(self) -> None:
        """Go on after the last good line. A file that was changed is left as it is, and a new one begun."""
        paths = segments_of(self._folder)
        for number in sorted(paths, reverse=True):
            found = read_file(paths[number])
            self._segment = max(self._segment, number)
            if found.header is None and not found.problem:  # it was begun, and cut off before its first line
                paths[number].unlink()
                self._segment = number - 1
                continue
            if found.header is None:
                continue
            self._digest = found.digest
            self._number = found.entries[-1].number + 1 if found.entries else found.header.next_number
            if number == self._segment and not found.problem:
                self._file = os.open(paths[number], os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
                os.ftruncate(self._file, found.good_bytes)
                self._size = found.good_bytes
                return
            break
        self._begin(self._segment + 1)

    def _begin(self, segment: int) -> None:
        """Begin a file with its header, then take away the oldest ones."""
        header, digest = line_of(Header(segment=segment, after=self._digest, next_number=self._number), self._digest)
        file = os.open(self._path(segment), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _write(file, header)
            os.fsync(file)
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                self._path(segment).unlink()
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._segment, self._digest, self._size = file, segment, digest, len(header)
        for number, path in segments_of(self._folder).items():
            if number <= segment - self._options.segments:
                path.unlink()

    def _path(self, segment: int) -> Path:
        return self._folder / f"audit-{segment:08d}.log"


def _merged(noted: list[tuple[int, Noted]], number: int, lost: int) -> list[Entry]:
    """Return one entry for all outcomes that differ in time and slack alone, in the order in which they first came."""
    groups: dict[tuple[object, ...], list[tuple[int, Noted]]] = {}
    for at, outcome in noted:
        groups.setdefault((outcome.kind, outcome.reason, outcome.variant, outcome.bundle), []).append((at, outcome))
    entries = []
    for index, group in enumerate(groups.values()):
        first = group[0][1]
        slacks = [outcome.slack_ms for _, outcome in group if outcome.slack_ms is not None]
        entries.append(
            Entry(
                number=number + index,
                first_unix_ms=group[0][0],
                last_unix_ms=group[-1][0],
                count=len(group),
                kind=first.kind,
                reason=first.reason[:MOST_REASON],
                least_slack_ms=min(slacks) if slacks else None,
                variant=first.variant,
                bundle=first.bundle,
                lost_before=0 if index else lost,
            )
        )
    return entries


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _locked(folder: Path) -> int:
    """Return an open file that is locked until it is closed, or the process ends. Raises OutputError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise refused(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise OutputError(
            f"{folder}: another process or runtime writes this audit log",
            required="one writer",
            next_step="stop the other one, or name another folder",
        ) from error
    return lock
