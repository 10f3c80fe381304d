"""The audit log: each line names who did what, and carries the digest of the line before.

Changing or removing a line breaks the chain from there on; the tables' triggers refuse it in the first place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.schema import audit

NOTHING = "0" * 64
"""What the first line names as the one before."""


class Entry(Value, kw_only=True):
    """One line of the log."""

    sequence: int
    at_ms: int
    actor: str
    """`token:ID`, `device:ID`, `server` or `command line`."""
    action: str
    subject: str
    product: str | None
    """None where the line is of the server as a whole."""
    detail: str
    previous_sha256: str
    sha256: str


async def record(
    database: Database,
    connection: AsyncConnection,
    *,
    at_ms: int,
    actor: str,
    action: str,
    subject: str,
    product: str | None = None,
    detail: object = None,
) -> None:
    """Add a line in the caller's transaction: the change and its line are kept together or not at all."""
    await database.lock(connection, "audit")
    newest = sql.select(audit.c.sequence, audit.c.sha256).order_by(audit.c.sequence.desc()).limit(1)
    last = (await connection.execute(newest)).first()
    entry = Entry(
        sequence=last.sequence + 1 if last else 1,
        at_ms=at_ms,
        actor=actor,
        action=action,
        subject=subject,
        product=product,
        detail=msgspec.json.encode(detail, order="sorted").decode(),
        previous_sha256=last.sha256 if last else NOTHING,
        sha256="",
    )
    row = msgspec.structs.asdict(msgspec.structs.replace(entry, sha256=digest(entry)))
    await connection.execute(sql.insert(audit).values(row))


def digest(entry: Entry) -> str:
    """Return the SHA-256 over a line without its own digest."""
    fields = [getattr(entry, name) for name in Entry.__struct_fields__ if name != "sha256"]
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


async def entries(
    connection: AsyncConnection, *, after: int = 0, limit: int = 100, products: Sequence[str] = (), newest: bool = False
) -> list[Entry]:
    """Return lines after a sequence number, oldest first; with `newest`, the last ones, newest first."""
    question = sql.select(audit).where(audit.c.sequence > after).limit(limit)
    question = question.order_by(audit.c.sequence.desc() if newest else audit.c.sequence)
    if products:
        question = question.where(audit.c.product.in_(products))
    return [Entry(**row) for row in (await connection.execute(question)).mappings()]


async def broken_at(connection: AsyncConnection) -> int | None:
    """Return the sequence number of the first line that does not follow from the one before, or None."""
    previous, expected = NOTHING, 1
    while lines := await entries(connection, after=expected - 1, limit=1000):
        for line in lines:
            if (line.sequence, line.previous_sha256, line.sha256) != (expected, previous, digest(line)):
                return expected
            previous, expected = line.sha256, expected + 1
    return None
