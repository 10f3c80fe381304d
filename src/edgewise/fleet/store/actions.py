"""What clients of the DDI interface were asked to do, and what became of it."""

from __future__ import annotations

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.fleet.store.schema import action

OPEN, CANCELLING, CANCELLED, FINISHED, FAILED = "open", "cancelling", "cancelled", "finished", "failed"


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one device to install one release."""

    id: int
    device_id: str
    rollout_id: str
    version: str
    state: str
    detail: str


async def latest(connection: AsyncConnection, device_id: str) -> Action | None:
    """Return what a device was last asked."""
    question = _columns().where(action.c.device_id == device_id).order_by(action.c.id.desc()).limit(1)
    row = (await connection.execute(question)).mappings().first()
    return None if row is None else Action(**row)


async def get(connection: AsyncConnection, device_id: str, number: int) -> Action | None:
    """Return an action of a device."""
    question = _columns().where(action.c.device_id == device_id, action.c.id == number)
    row = (await connection.execute(question)).mappings().first()
    return None if row is None else Action(**row)


async def ensure(
    connection: AsyncConnection, *, device_id: str, rollout_id: str, version: str, now_ms: int
) -> Action | None:
    """Return the action for this device, rollout and version; made where there is none."""
    row = {
        "device_id": device_id,
        "rollout_id": rollout_id,
        "version": version,
        "state": OPEN,
        "detail": "",
        "updated_ms": now_ms,
    }
    try:
        async with connection.begin_nested():
            await connection.execute(sql.insert(action).values(row))
    except IntegrityError:  # another poll of the same device was first
        pass
    by_content = (action.c.rollout_id == rollout_id, action.c.version == version)
    found = _columns().where(action.c.device_id == device_id, *by_content)
    made = (await connection.execute(found)).mappings().first()
    return None if made is None else Action(**made)


async def set_state(connection: AsyncConnection, number: int, state: str, *, detail: str, now_ms: int) -> None:
    """Note what became of an action."""
    values = {"state": state, "detail": detail, "updated_ms": now_ms}
    await connection.execute(sql.update(action).where(action.c.id == number).values(values))


def _columns() -> sql.Select[tuple[object, ...]]:
    return sql.select(*(action.c[name] for name in Action.__struct_fields__))
