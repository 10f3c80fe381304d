"""The devices of the fleet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.errors import ConflictError
from edgewise.fleet.store.schema import cell, device, nonce
from edgewise.fleet.store.tokens import EnrolmentGrant, Secret


class DeviceView(Value, kw_only=True):
    """A device as it is shown."""

    id: str
    product: str
    device_class: str
    labels: tuple[str, ...]
    release: str | None
    """What it last said it runs."""
    enrolled_ms: int
    seen_ms: int | None
    revoked_ms: int | None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to know a device again."""

    id: str
    product: str
    device_class: str
    public_key: bytes
    token_sha256: bytes | None


async def enrol(
    connection: AsyncConnection,
    *,
    name: str,
    public_key: bytes,
    grant: EnrolmentGrant,
    now_ms: int,
) -> None:
    """Add a device. Raises ConflictError where the name is taken."""
    row = {
        "id": name,
        "product": grant.product,
        "device_class": grant.device_class,
        "labels": msgspec.json.encode(grant.labels).decode(),
        "public_key": public_key,
        "enrolled_ms": now_ms,
    }
    try:
        await connection.execute(sql.insert(device).values(row))
    except IntegrityError as error:
        raise ConflictError(
            f"a device {name!r} is enrolled already",
            required="a name of its own for each device",
            next_step="enrol under another name; a device that was revoked does not come back under its old one",
        ) from error


async def identities(connection: AsyncConnection, names: Sequence[str]) -> dict[str, Identity]:
    """Return the keys of those devices that are enrolled and not revoked, by name."""
    columns = [device.c[name] for name in Identity.__struct_fields__]
    question = sql.select(*columns).where(device.c.id.in_(names), device.c.revoked_ms.is_(None))
    return {row["id"]: Identity(**row) for row in (await connection.execute(question)).mappings()}


async def identity_of_token(connection: AsyncConnection, token_id: str) -> Identity | None:
    """Return the keys of the device whose token has this id."""
    columns = [device.c[name] for name in Identity.__struct_fields__]
    question = sql.select(*columns).where(device.c.token_id == token_id, device.c.revoked_ms.is_(None))
    row = (await connection.execute(question)).mappings().first()
    return None if row is None else Identity(**row)


async def get(connection: AsyncConnection, name: str) -> DeviceView | None:
    """Return one device."""
    row = (await connection.execute(sql.select(device).where(device.c.id == name))).first()
    return None if row is None else _view(row)


async def listed(
    connection: AsyncConnection, *, products: Sequence[str] = (), after: str = "", limit: int = 100
) -> list[DeviceView]:
    """Return devices by name, after a name."""
    question = sql.select(device).where(device.c.id > after).order_by(device.c.id).limit(limit)
    if products:
        question = question.where(device.c.product.in_(products))
    return [_view(row) for row in await connection.execute(question)]


async def with_reports(connection: AsyncConnection, views: Sequence[DeviceView]) -> list[DeviceView]:
    """Return devices with what telemetry says of them: polls are answered from files and leave no trace."""
    at, began = sql.func.max(cell.c.reported_ms).label("at"), sql.func.max(cell.c.start_ms).label("began")
    question = sql.select(cell.c.device_id, cell.c.release, at, began).group_by(cell.c.device_id, cell.c.release)
    rows = await connection.execute(
        question.where(cell.c.device_id.in_([each.id for each in views])).order_by(at, began)
    )
    newest = {row.device_id: row for row in rows}
    return [
        msgspec.structs.replace(each, release=newest[each.id].release, seen_ms=newest[each.id].at)
        if each.id in newest and newest[each.id].at > (each.seen_ms or 0)
        else each
        for each in views
    ]


async def members(connection: AsyncConnection, product: str) -> list[DeviceView]:
    """Return all devices of a product that are not revoked."""
    question = sql.select(device).where(device.c.product == product, device.c.revoked_ms.is_(None))
    return [_view(row) for row in await connection.execute(question.order_by(device.c.id))]


async def revoke(connection: AsyncConnection, name: str, *, now_ms: int) -> bool:
    """Shut a device out for good; False where there is none to shut out."""
    question = sql.update(device).where(device.c.id == name, device.c.revoked_ms.is_(None))
    return (await connection.execute(question.values(revoked_ms=now_ms))).rowcount == 1


async def set_labels(connection: AsyncConnection, name: str, labels: Sequence[str]) -> None:
    """Replace the labels of a device."""
    text = msgspec.json.encode(tuple(labels)).decode()
    await connection.execute(sql.update(device).where(device.c.id == name).values(labels=text))


async def set_token(connection: AsyncConnection, name: str, made: Secret) -> None:
    """Replace the token of a device that cannot sign."""
    values = {"token_id": made.id, "token_sha256": made.sha256}
    await connection.execute(sql.update(device).where(device.c.id == name).values(values))


async def report(connection: AsyncConnection, name: str, *, release: str | None, now_ms: int) -> None:
    """Note what a device says it runs."""
    values: dict[str, object] = {"seen_ms": now_ms} if release is None else {"seen_ms": now_ms, "release": release}
    await connection.execute(sql.update(device).where(device.c.id == name).values(values))


async def use_nonce(connection: AsyncConnection, name: str, value: str, *, expires_ms: int) -> bool:
    """Take a nonce; False where it was taken before."""
    try:
        async with connection.begin_nested():
            row = {"device_id": name, "nonce": value, "expires_ms": expires_ms}
            await connection.execute(sql.insert(nonce).values(row))
    except IntegrityError:
        return False
    return True


async def prune_nonces(connection: AsyncConnection, *, now_ms: int) -> None:
    """Forget nonces whose time is refused anyway."""
    await connection.execute(sql.delete(nonce).where(nonce.c.expires_ms <= now_ms))


def _view(row: sql.Row[tuple[object, ...]]) -> DeviceView:
    fields = {name: getattr(row, name) for name in DeviceView.__struct_fields__}
    return DeviceView(**{**fields, "labels": tuple(msgspec.json.decode(row.labels))})
