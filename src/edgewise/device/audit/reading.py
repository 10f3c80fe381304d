"""Reads a log, and says whether it is as it was written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgewise.contracts.base import Value
from edgewise.device.audit.chain import START, Entry, Segment, read_segment
from edgewise.errors import DataError

MOST_SEGMENT_BYTES = 64 << 20
_NAME = re.compile(r"audit-([0-9]{8})\.log")


class Audit(Value, kw_only=True):
    """A whole log. `problems` are empty where every line that is there is as it was written.

    `head` is the digest of the last good line: one that was noted elsewhere must be found by `audit` later.
    """

    entries: tuple[Entry, ...]
    segments: int
    head: str
    dropped: int
    """Entries before the oldest one that is still kept: taken away by rotation."""
    torn_bytes: int
    """Of a line at the end whose write was cut off."""
    problems: tuple[str, ...] = ()
    digests: frozenset[str] = frozenset()
    """Of every good line, and of what the oldest file goes on from."""

    def holds(self, head: str) -> bool:
        """Return whether a head that was noted earlier is still in the chain: nothing before it was taken away."""
        return head in self.digests


def segments_of(folder: Path) -> dict[int, Path]:
    """Return the files of a log by number, ascending. Raises DataError where the folder cannot be read."""
    try:
        names = [(_NAME.fullmatch(each.name), each) for each in folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror or error}",
            required="the folder of an audit log",
            next_step="look at `[audit]` of the agent's settings for the folder",
        ) from error
    return dict(sorted((int(name[1]), path) for name, path in names if name is not None))


def read_file(path: Path) -> Segment:
    """Return what one file holds. Raises DataError where it cannot be read or is too large."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 - no link is followed
            data = file.read(MOST_SEGMENT_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", required="a file of the log") from error
    if len(data) > MOST_SEGMENT_BYTES:
        raise DataError(f"{path}: more than {MOST_SEGMENT_BYTES} bytes", required="a file of the log")
    return read_segment(data)


def read_audit(folder: Path) -> Audit:
    """Return everything that a log holds. Raises DataError where there is none, or it cannot be read."""
    paths = segments_of(folder)
    if not paths:
        raise DataError(f"{folder} holds no audit log", required="files named audit-00000001.log and up")
    entries: list[Entry] = []
    digests: set[str] = set()
    problems: list[str] = []
    digest, dropped, torn, before = START, 0, 0, min(paths) - 1
    for number, path in paths.items():
        found, is_last = read_file(path), number == max(paths)
        if number != before + 1:
            problems.append(f"{path.name}: the file before is missing")
        before = number
        if found.header is None:
            if found.problem or not is_last:
                problems.append(f"{path.name}: {found.problem or 'no whole line'}")
            torn += found.torn_bytes
            continue
        header = found.header
        if number == min(paths):
            dropped = header.next_number
            digest = header.after
            digests.add(digest)
        expected = entries[-1].number + 1 if entries else header.next_number
        if (header.after, header.segment, header.next_number) != (digest, number, expected):
            problems.append(f"{path.name}: it does not go on from the file before")
        if found.problem:
            problems.append(f"{path.name}, {found.problem}")
        elif found.torn_bytes and not is_last:
            problems.append(f"{path.name}: {found.torn_bytes} bytes after the last line")
        entries += found.entries
        digests.update(found.digests)
        digest, torn = found.digest, torn + (found.torn_bytes if is_last else 0)
    return Audit(
        entries=tuple(entries),
        segments=len(paths),
        head=digest,
        dropped=dropped,
        torn_bytes=torn,
        problems=tuple(problems),
        digests=frozenset(digests),
    )
