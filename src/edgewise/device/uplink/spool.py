"""Envelopes on the disk until a server has them: bounded, and what had to go is counted.

SQLite with a write-ahead log, flushed at each commit: what `put` has returned from survives a power cut. Where the
bytes run out, windows are merged before any is dropped: of all windows of one release and variant that were merged
equally often, the two oldest become one; the level with most of them comes first. So the past grows coarser the
older it is, and the sums stay exact. Only where nothing can be merged any more is the oldest dropped, and counted.

An envelope that was claimed for sending may have been received: from then on it keeps its key and its content, until
it is acknowledged or dropped.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from edgewise.contracts.telemetry import LATEST_UNIX_MS, MOST_BYTES, Envelope, decode_envelope, encode_envelope
from edgewise.device.uplink.merging import merged
from edgewise.errors import OutputError, TelemetryError

NAME = "spool.db"
BROKEN = "spool.db.broken"
FORMAT = 1
"""As `_TABLES` says it too."""
LIMIT_BYTES = 16 * 1024 * 1024
LEAST_LIMIT_BYTES = 2 * MOST_BYTES
ROW_BYTES = 256
"""What a row costs beside its document: the other columns and the indices, rounded up."""
SETTLED = 1_000
"""The level of a window that does not go with its neighbour."""

_TABLES = """
CREATE TABLE envelope (
    number INTEGER PRIMARY KEY,
    boot TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    end_ms INTEGER NOT NULL,
    subject TEXT NOT NULL,
    level INTEGER NOT NULL DEFAULT 0,
    windows INTEGER NOT NULL DEFAULT 1,
    claimed INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    document BLOB NOT NULL,
    UNIQUE (boot, sequence)
);
CREATE INDEX by_level ON envelope (claimed, subject, level, number, size);
CREATE TABLE lost (windows INTEGER NOT NULL);
INSERT INTO lost VALUES (0);
PRAGMA user_version = 1;
"""


class Claimed(NamedTuple):
    """An envelope that is about to be sent: its number in the spool, and its JSON."""

    number: int
    document: bytes


class Held(NamedTuple):
    """What a spool holds: envelopes, the windows that were merged into them, bytes, and losses not yet reported."""

    envelopes: int
    windows: int
    size_bytes: int
    lost_windows: int


class Spool:
    """The spool of one device; any thread may use it."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, limit_bytes: int) -> None:
        """Use an open database; see `open`."""
        self._connection = connection
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._not_stored = 0

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> Self:
        """Open the spool of a folder, or begin one.

        A file that is damaged, or of another version, is set aside and counted as one lost window at least. Raises
        OutputError where the folder cannot be written, ValueError for a limit below `LEAST_LIMIT_BYTES`.
        """
        if limit_bytes < LEAST_LIMIT_BYTES:
            raise ValueError(f"a limit of {limit_bytes} bytes, required at least {LEAST_LIMIT_BYTES}")
        path = folder / NAME
        with _disk(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                return cls(_connected(path), path, limit_bytes=limit_bytes)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise  # locked, or not to be written: nothing is wrong with the file
            path.replace(folder / BROKEN)
            for each in ("-wal", "-shm"):
                path.with_name(NAME + each).unlink(missing_ok=True)
            found = cls(_connected(path), path, limit_bytes=limit_bytes)
            with found._writing() as connection:
                connection.execute("UPDATE lost SET windows = 1")
            return found

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Store envelopes; they are on the disk when this returns. One whose key is there already adds nothing.

        The first of them says how many windows were lost before it; one that is larger than an envelope may be is
        lost itself. Raises OutputError where the disk takes nothing: then none is stored, and all count as lost.
        """
        try:
            with self._writing() as connection:
                _lose(connection, self._not_stored)
                for each in envelopes:
                    _insert(connection, each)
                self._shrink(connection)
        except OutputError:
            self._not_stored += sum(1 + each.lost_windows for each in envelopes)
            raise
        self._not_stored = 0

    def claim(self, *, most: int, most_bytes: int) -> list[Claimed]:
        """Return what to send next, oldest first, and note that it may have been received from now on.

        What was claimed before and not acknowledged comes first, by itself: the same batch again. At least one is
        given where there is any. Raises OutputError.
        """
        query = "SELECT number, document FROM envelope WHERE claimed = ? ORDER BY number LIMIT ?"
        with self._writing() as connection:
            rows = connection.execute(query, (1, most)).fetchall() or connection.execute(query, (0, most)).fetchall()
            found: list[Claimed] = []
            size = 0
            for number, document in rows:
                size += len(document)
                if found and size > most_bytes:
                    break
                found.append(Claimed(number, bytes(document)))
            connection.executemany(
                "UPDATE envelope SET claimed = 1 WHERE number = ?", [(each.number,) for each in found]
            )
        return found

    def not_received(self, numbers: Sequence[int]) -> None:
        """Take back that envelopes may have been received: the server has said that it kept none."""
        with self._writing() as connection:
            connection.executemany("UPDATE envelope SET claimed = 0 WHERE number = ?", [(each,) for each in numbers])

    def acknowledged(self, numbers: Sequence[int]) -> None:
        """Forget envelopes that a server has. Raises OutputError."""
        with self._writing() as connection:
            connection.executemany("DELETE FROM envelope WHERE number = ?", [(number,) for number in numbers])

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget envelopes that no server takes, and count their windows as lost. Raises OutputError."""
        with self._writing() as connection:
            for number in numbers:
                _drop(connection, number)

    def drop_ended_before(self, limit_ms: int) -> int:
        """Drop what is too old to be taken; return how many envelopes it was. Raises OutputError."""
        with self._writing() as connection:
            rows = connection.execute("SELECT number FROM envelope WHERE end_ms < ?", (limit_ms,)).fetchall()
            for (number,) in rows:
                _drop(connection, number)
        return len(rows)

    def shift(self, boot: str, by_ms: int) -> None:
        """Move the windows of a boot in time, after its clock was found wrong; what was claimed stays as it is."""
        with self._writing() as connection:
            query = "SELECT number, document FROM envelope WHERE boot = ? AND claimed = 0"
            for number, document in connection.execute(query, (boot,)).fetchall():
                old = decode_envelope(document)
                start_ms, end_ms = (
                    min(max(each + by_ms, 0), LATEST_UNIX_MS) for each in (old.start_unix_ms, old.end_unix_ms)
                )
                _rewrite(connection, number, msgspec.structs.replace(old, start_unix_ms=start_ms, end_unix_ms=end_ms))

    def held(self) -> Held:
        """Return what is there. Raises OutputError."""
        with self._lock, _disk(self._path):
            count, windows, size = self._connection.execute(
                "SELECT COUNT(*), COALESCE(SUM(windows), 0), COALESCE(SUM(size), 0) FROM envelope"
            ).fetchone()
            (lost,) = self._connection.execute("SELECT windows FROM lost").fetchone()
        return Held(count, windows, size, lost + self._not_stored)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing, on the disk when the block has ended. Raises OutputError."""
        with self._lock, _disk(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _shrink(self, connection: sqlite3.Connection) -> None:
        while True:
            (size,) = connection.execute("SELECT COALESCE(SUM(size), 0) FROM envelope").fetchone()
            if size <= self._limit_bytes:
                return
            if not _merge_two(connection):
                # What was claimed goes last: it may have arrived, and would be counted as lost all the same.
                (number,) = connection.execute(
                    "SELECT number FROM envelope ORDER BY claimed, number LIMIT 1"
                ).fetchone()
                _drop(connection, number)


def _insert(connection: sqlite3.Connection, envelope: Envelope) -> None:
    key = (envelope.boot, envelope.sequence)
    if connection.execute("SELECT 1 FROM envelope WHERE boot = ? AND sequence = ?", key).fetchone():
        return
    (lost,) = connection.execute("SELECT windows FROM lost").fetchone()
    lost += envelope.lost_windows
    try:
        document = encode_envelope(msgspec.structs.replace(envelope, lost_windows=lost))
    except TelemetryError:  # too large
        _lose(connection, 1 + envelope.lost_windows)
        return
    subject = f"{envelope.device_class} {envelope.release} {envelope.variant}"
    connection.execute(
        "INSERT INTO envelope (boot, sequence, end_ms, subject, size, lost, document) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*key, envelope.end_unix_ms, subject, len(document) + ROW_BYTES, lost, document),
    )
    connection.execute("UPDATE lost SET windows = 0")


def _merge_two(connection: sqlite3.Connection) -> bool:
    """Merge the two oldest windows of the fullest level, or settle the older; return False where no level has two."""
    row = connection.execute(
        "SELECT subject, level FROM envelope WHERE claimed = 0 AND level < ? GROUP BY subject, level "
        "HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC, MIN(number) LIMIT 1",
        (SETTLED,),
    ).fetchone()
    if row is None:
        return False
    (one, first), (other, second) = connection.execute(
        "SELECT number, document FROM envelope WHERE claimed = 0 AND subject = ? AND level = ? ORDER BY number LIMIT 2",
        row,
    ).fetchall()
    whole = merged(decode_envelope(first), decode_envelope(second))
    try:
        if whole is not None:
            _rewrite(connection, one, whole)
    except TelemetryError:  # too large together
        whole = None
    if whole is None:
        connection.execute("UPDATE envelope SET level = ? WHERE number = ?", (SETTLED, one))
        return True
    connection.execute(
        "UPDATE envelope SET level = level + 1, "
        "windows = windows + (SELECT windows FROM envelope WHERE number = ?) WHERE number = ?",
        (other, one),
    )
    connection.execute("DELETE FROM envelope WHERE number = ?", (other,))
    return True


def _rewrite(connection: sqlite3.Connection, number: int, envelope: Envelope) -> None:
    document = encode_envelope(envelope)
    connection.execute(
        "UPDATE envelope SET end_ms = ?, size = ?, lost = ?, document = ? WHERE number = ?",
        (envelope.end_unix_ms, len(document) + ROW_BYTES, envelope.lost_windows, document, number),
    )


def _lose(connection: sqlite3.Connection, windows: int) -> None:
    connection.execute("UPDATE lost SET windows = windows + ?", (windows,))


def _drop(connection: sqlite3.Connection, number: int) -> None:
    row = connection.execute("SELECT windows + lost FROM envelope WHERE number = ?", (number,)).fetchone()
    if row is not None:
        _lose(connection, row[0])
    connection.execute("DELETE FROM envelope WHERE number = ?", (number,))


def _connected(path: Path) -> sqlite3.Connection:
    """Return a connection to a sound spool. Raises sqlite3.DatabaseError where the file is none."""
    # One connection for all threads, behind the lock; transactions are begun by hand.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {MOST_BYTES}")
        connection.execute("PRAGMA wal_autocheckpoint = 64")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if version not in {0, FORMAT} or sound != "ok":
            raise sqlite3.DatabaseError(f"version {version}, {sound}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"{path}: {error}",
            required="a folder that can be written, with space left",
            next_step="free some space; what was stored before is untouched",
        ) from error
