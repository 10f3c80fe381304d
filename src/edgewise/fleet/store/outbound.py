"""OTLP requests that wait for a collector, oldest first."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.fleet.store.schema import outbound


class Waiting(NamedTuple):
    """A request that this process has claimed."""

    id: int
    document: bytes


async def add(connection: AsyncConnection, document: bytes) -> None:
    """Keep a request until a collector has taken it."""
    await connection.execute(sql.insert(outbound).values(claimed_ms=0, document=document))


async def claim(connection: AsyncConnection, *, now_ms: int, expired_ms: int) -> Waiting | None:
    """Claim the oldest request that no other process has claimed after `expired_ms`; None where there is none."""
    free = outbound.c.claimed_ms <= expired_ms
    question = sql.select(outbound.c.id, outbound.c.document).where(free).order_by(outbound.c.id).limit(1)
    row = (await connection.execute(question)).first()
    if row is None:
        return None
    mine = sql.update(outbound).where(outbound.c.id == row.id, free).values(claimed_ms=now_ms)
    return Waiting(row.id, row.document) if (await connection.execute(mine)).rowcount == 1 else None


async def release(connection: AsyncConnection, number: int) -> None:
    """Give a claimed request back: it was not taken."""
    await connection.execute(sql.update(outbound).where(outbound.c.id == number).values(claimed_ms=0))


async def delete(connection: AsyncConnection, number: int) -> None:
    """Forget a request that was taken."""
    await connection.execute(sql.delete(outbound).where(outbound.c.id == number))


async def count(connection: AsyncConnection) -> int:
    """Return how many wait."""
    return (await connection.execute(sql.select(sql.func.count()).select_from(outbound))).scalar_one()


async def drop_oldest(connection: AsyncConnection, *, most: int) -> int:
    """Keep the newest `most` requests; return how many were dropped."""
    kept = sql.select(outbound.c.id).order_by(outbound.c.id.desc()).limit(most)
    return (await connection.execute(sql.delete(outbound).where(outbound.c.id.not_in(kept)))).rowcount
