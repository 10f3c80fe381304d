"""Entries as lines, each with a digest over its own text and the digest before it. Pure: bytes out, bytes in.

A line is 64 hex digits, a space, JSON, and a line feed. The digits are the SHA-256 of the 64 of the line before and the
JSON. The first line of a file, its header, names the digest that it goes on from, so that files make one chain.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.outcome import OutcomeKind

START = "0" * 64
MOST_LINE = 4096
_DIGITS = 64


class Header(Value, kw_only=True):
    """The first line of a file."""

    format_version: Literal[1] = 1
    segment: int
    after: str
    """Digest of the last good line of the file before; `START` for the first."""
    next_number: int
    """Of the first entry that follows."""


class Entry(Value, kw_only=True):
    """Equal outcomes within a second: `count` of them, from `first_unix_ms` to `last_unix_ms`."""

    number: int
    first_unix_ms: int
    last_unix_ms: int
    count: int
    kind: OutcomeKind | None
    """None for what happened to the device, which is no answer."""
    reason: str
    least_slack_ms: float | None = None
    """The least of them; None where there was no deadline."""
    variant: str | None = None
    bundle: str | None = None
    lost_before: int = 0
    """Outcomes that could not be kept since the entry before: more than the queue holds, or the disk refused."""


class Segment(Value, kw_only=True):
    """What a file holds as far as its chain goes. `good_bytes` are those; `problem` is empty where that is all of it.

    Bytes after the last line feed are no problem of the chain: a write that was cut off.
    """

    header: Header | None
    entries: tuple[Entry, ...] = ()
    digest: str = START
    """Of the last good line."""
    digests: tuple[str, ...] = ()
    """Of every good line."""
    good_bytes: int = 0
    torn_bytes: int = 0
    problem: str = ""


def line_of(value: Header | Entry, before: str) -> tuple[bytes, str]:
    """Return the line and its digest."""
    text = msgspec.json.encode(value)
    digest = _digest(before, text)
    return digest.encode() + b" " + text + b"\n", digest


def read_segment(data: bytes) -> Segment:
    """Return the header and the entries of a file, up to the first line that is not as it was written."""
    *lines, torn = data.split(b"\n")
    if not lines:
        return Segment(header=None, torn_bytes=len(torn))
    try:
        header = msgspec.json.decode(lines[0][_DIGITS + 1 :], type=Header)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return Segment(header=None, torn_bytes=len(torn), problem=f"line 1: no header: {error}")
    digest, entries, good = header.after, list[Entry](), 0
    digests: list[str] = []
    problem = ""
    for number, line in enumerate(lines):
        text = line[_DIGITS + 1 :]
        if line[: _DIGITS + 1] != _digest(digest, text).encode() + b" ":
            problem = f"line {number + 1}: another digest than that of its text and the lines before"
            break
        if number:
            try:
                entry = msgspec.json.decode(text, type=Entry)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                problem = f"line {number + 1}: {error}"
                break
            if entry.number != header.next_number + number - 1:
                problem = f"line {number + 1}: entry {entry.number}, not {header.next_number + number - 1}"
                break
            entries.append(entry)
        digest, good = line[:_DIGITS].decode(), good + len(line) + 1
        digests.append(digest)
    return Segment(
        header=header if good else None,
        entries=tuple(entries),
        digest=digest,
        digests=tuple(digests),
        good_bytes=good,
        torn_bytes=len(torn),
        problem=problem,
    )


def _digest(before: str, text: bytes) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()
