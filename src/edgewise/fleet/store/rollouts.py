"""Rollouts and what happened to them. A change names the revision it was made from, so that none is lost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.contracts.rollout import Event, Rollout, State, decode_rollout, encode_rollout
from edgewise.errors import ConflictError
from edgewise.fleet.store.schema import rollout, rollout_event

ACTIVE = (State.STAGED, State.PAUSED)


class Kept(Value, kw_only=True):
    """A rollout with the revision it is at."""

    revision: int
    created_ms: int
    updated_ms: int
    rollout: Rollout


class KeptEvent(Value, kw_only=True):
    """An event with its number; numbers grow."""

    id: int
    event: Event


async def add(connection: AsyncConnection, new: Rollout, events: Sequence[Event], *, now_ms: int) -> Kept:
    """Add a rollout and its first events."""
    row = _row(new, 1, now_ms) | {"id": new.id, "created_ms": now_ms}
    await connection.execute(sql.insert(rollout).values(row))
    await _add_events(connection, events)
    return Kept(revision=1, created_ms=now_ms, updated_ms=now_ms, rollout=new)


async def save(connection: AsyncConnection, old: Kept, new: Rollout, events: Sequence[Event], *, now_ms: int) -> Kept:
    """Write a change. Raises ConflictError where somebody else changed the rollout meanwhile."""
    at = sql.update(rollout).where(rollout.c.id == old.rollout.id, rollout.c.revision == old.revision)
    if (await connection.execute(at.values(_row(new, old.revision + 1, now_ms)))).rowcount != 1:
        raise ConflictError(f"rollout {new.id} has changed meanwhile", next_step="look at it and ask again")
    await _add_events(connection, events)
    return Kept(revision=old.revision + 1, created_ms=old.created_ms, updated_ms=now_ms, rollout=new)


async def get(connection: AsyncConnection, name: str) -> Kept | None:
    """Return one rollout."""
    row = (await connection.execute(sql.select(rollout).where(rollout.c.id == name))).first()
    return None if row is None else _kept(row)


async def listed(
    connection: AsyncConnection,
    *,
    products: Sequence[str] = (),
    product: str | None = None,
    states: Sequence[State] = (),
    limit: int = 1000,
) -> list[Kept]:
    """Return rollouts, newest first."""
    question = sql.select(rollout).order_by(rollout.c.created_ms.desc(), rollout.c.id).limit(limit)
    if products:
        question = question.where(rollout.c.product.in_(products))
    if product is not None:
        question = question.where(rollout.c.product == product)
    if states:
        question = question.where(rollout.c.state.in_([state.value for state in states]))
    return [_kept(row) for row in await connection.execute(question)]


async def events(connection: AsyncConnection, name: str, *, after: int = 0, limit: int = 1000) -> list[KeptEvent]:
    """Return what happened to a rollout after a number, oldest first."""
    question = sql.select(rollout_event).where(rollout_event.c.rollout_id == name, rollout_event.c.id > after)
    rows = await connection.execute(question.order_by(rollout_event.c.id).limit(limit))
    return [KeptEvent(id=row.id, event=msgspec.json.decode(row.document, type=Event)) for row in rows]


async def _add_events(connection: AsyncConnection, new: Sequence[Event]) -> None:
    rows = [
        {"rollout_id": each.rollout, "at_ms": round(each.at_s * 1000), "document": msgspec.json.encode(each)}
        for each in new
    ]
    if rows:
        await connection.execute(sql.insert(rollout_event), rows)


def _row(new: Rollout, revision: int, now_ms: int) -> dict[str, object]:
    return {
        "product": new.to_release.product,
        "version": new.to_release.version,
        "state": new.state.value,
        "revision": revision,
        "document": encode_rollout(new),
        "started_ms": None if new.start_s is None else round(new.start_s * 1000),
        "updated_ms": now_ms,
    }


def _kept(row: sql.Row[tuple[object, ...]]) -> Kept:
    return Kept(
        revision=row.revision,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        rollout=decode_rollout(row.document),
    )
