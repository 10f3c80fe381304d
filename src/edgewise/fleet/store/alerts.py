"""Alerts: opened once per product and rule, closed when the trouble is over; both are in the audit log."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.fleet.alerts import Burn, Burning
from edgewise.fleet.store import audit
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.schema import alert, series


class Alert(Value, kw_only=True):
    """One alert, with the rates that opened it."""

    id: str
    product: str
    opened_ms: int
    closed_ms: int | None
    burn: Burn


async def listed(
    connection: AsyncConnection, *, products: Sequence[str] = (), only_open: bool = False, limit: int = 1000
) -> list[Alert]:
    """Return alerts, newest first."""
    question = sql.select(alert).order_by(alert.c.opened_ms.desc(), alert.c.id).limit(limit)
    if products:
        question = question.where(alert.c.product.in_(products))
    if only_open:
        question = question.where(alert.c.closed_ms.is_(None))
    return [
        Alert(
            id=row.id,
            product=row.product,
            opened_ms=row.opened_ms,
            closed_ms=row.closed_ms,
            burn=msgspec.json.decode(row.document, type=Burn),
        )
        for row in await connection.execute(question)
    ]


async def reporting(connection: AsyncConnection, *, since_ms: int) -> set[str]:
    """Return the products that have reported since a time."""
    question = sql.select(series.c.product).where(series.c.start_ms >= since_ms).distinct()
    return {row.product for row in await connection.execute(question)}


async def note(
    database: Database, connection: AsyncConnection, product: str, burns: Sequence[Burn], *, now_ms: int
) -> None:
    """Open what fires and is not open, close what is open and quiet. Too few events change nothing."""
    known = {each.burn.rule: each for each in await listed(connection, products=(product,), only_open=True)}
    for burn in burns:
        old = known.get(burn.rule)
        if burn.state is Burning.FIRING and old is None:
            row = {"id": secrets.token_hex(8), "product": product, "opened_ms": now_ms}
            await connection.execute(sql.insert(alert).values(row | {"document": msgspec.json.encode(burn)}))
            action = "alert.open"
        elif burn.state is Burning.QUIET and old is not None:
            await connection.execute(sql.update(alert).where(alert.c.id == old.id).values(closed_ms=now_ms))
            action = "alert.close"
        else:
            continue
        await audit.record(
            database,
            connection,
            at_ms=now_ms,
            actor="server",
            action=action,
            subject=f"{product} {burn.rule}",
            product=product,
            detail=burn,
        )
