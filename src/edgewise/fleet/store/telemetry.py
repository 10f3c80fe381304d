"""Envelopes as they came, and what they add up to.

Writing envelopes is the hot path: one statement for many rows, written by hand for each database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import asyncpg
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.errors import StorageError
from edgewise.fleet.ingest_totals import Totals, decode, encode
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.rollouts import ACTIVE, listed
from edgewise.fleet.store.schema import cell, envelope, rollout, series

INSERT_POSTGRESQL = """
INSERT INTO envelope (device_id, boot_id, sequence, product, received_ms, document)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[])
ON CONFLICT DO NOTHING
"""
INSERT_SQLITE = """
INSERT OR IGNORE INTO envelope (device_id, boot_id, sequence, product, received_ms, document) VALUES (?, ?, ?, ?, ?, ?)
"""


class Received(NamedTuple):
    """An envelope that came in, as a row."""

    device_id: str
    boot_id: str
    sequence: int
    product: str
    received_ms: int
    document: bytes


class CellKey(NamedTuple):
    """What a cell is of."""

    device_id: str
    release: str
    start_ms: int


class Cell(NamedTuple):
    """What one device reported of one release in one stretch of time."""

    product: str
    device_class: str
    reported_ms: int
    totals: Totals


class SeriesKey(NamedTuple):
    """What a row of a series is of."""

    product: str
    start_ms: int
    release: str
    variant: str
    device_class: str


async def write(database: Database, connection: AsyncConnection, rows: Sequence[Received]) -> int:
    """Write envelopes whose key is new, and return how many those were."""
    raw = (await connection.get_raw_connection()).driver_connection
    if raw is None:
        raise AssertionError("a connection in use has a driver")
    if database.is_postgresql:
        columns = [list(column) for column in zip(*rows, strict=True)]
        try:
            done: str = await raw.execute(INSERT_POSTGRESQL, *columns)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            await connection.invalidate()  # SQLAlchemy has not seen the error, and would use the connection again
            raise StorageError(f"the database did not answer: {type(error).__name__}") from error
        return int(done.rpartition(" ")[2])
    cursor = await raw.executemany(INSERT_SQLITE, rows)
    count: int = cursor.rowcount
    await cursor.close()
    return count


async def unmerged(connection: AsyncConnection, *, limit: int) -> list[Received]:
    """Return envelopes that wait to be merged, oldest first."""
    columns = [envelope.c[name] for name in Received._fields]
    waiting = sql.and_(envelope.c.document.is_not(None), envelope.c.fault.is_(None))
    question = sql.select(*columns).where(waiting).order_by(envelope.c.received_ms).limit(limit)
    return [Received(*row) for row in await connection.execute(question)]


async def count_unmerged(connection: AsyncConnection) -> int:
    """Return how many envelopes wait to be merged."""
    waiting = sql.and_(envelope.c.document.is_not(None), envelope.c.fault.is_(None))
    return (await connection.execute(sql.select(sql.func.count()).select_from(envelope).where(waiting))).scalar_one()


async def mark_merged(connection: AsyncConnection, rows: Iterable[Received], faults: Mapping[Received, str]) -> None:
    """Take away what has been merged, and note why the rest has not."""
    by_key = sql.and_(
        envelope.c.device_id == sql.bindparam("b_device"),
        envelope.c.boot_id == sql.bindparam("b_boot"),
        envelope.c.sequence == sql.bindparam("b_sequence"),
    )
    merged = [_key(row) for row in rows if row not in faults]
    if merged:
        await connection.execute(sql.update(envelope).where(by_key).values(document=None), merged)
    if faults:
        bad = [{**_key(row), "b_fault": fault} for row, fault in faults.items()]
        await connection.execute(sql.update(envelope).where(by_key).values(fault=sql.bindparam("b_fault")), bad)


def _key(row: Received) -> dict[str, object]:
    return {"b_device": row.device_id, "b_boot": row.boot_id, "b_sequence": row.sequence}


async def prune(connection: AsyncConnection, *, before_ms: int) -> None:
    """Forget keys of merged envelopes that came in before a time; older envelopes are refused."""
    old = sql.and_(envelope.c.received_ms < before_ms, envelope.c.document.is_(None))
    await connection.execute(sql.delete(envelope).where(old))


async def cuts(connection: AsyncConnection) -> dict[str, list[int]]:
    """Return for each product when its rollouts, and the stages that are watched now, began: ascending, in ms."""
    columns = sql.select(rollout.c.product, rollout.c.started_ms).where(rollout.c.started_ms.is_not(None))
    found: dict[str, list[int]] = {}
    for product, started_ms in await connection.execute(columns):
        found.setdefault(product, []).append(started_ms)
    for kept in await listed(connection, states=ACTIVE):
        if kept.rollout.stage_start_s is not None:
            found[kept.rollout.to_release.product].append(round(kept.rollout.stage_start_s * 1000))
    return {product: sorted(each) for product, each in found.items()}


async def read_cells(connection: AsyncConnection, keys: Iterable[CellKey]) -> dict[CellKey, Cell]:
    """Return the cells of these keys that are there."""
    wanted = set(keys)
    question = sql.select(cell).where(cell.c.device_id.in_({key.device_id for key in wanted}))
    question = question.where(cell.c.start_ms.in_({key.start_ms for key in wanted}))
    rows = {CellKey(row.device_id, row.release, row.start_ms): row for row in await connection.execute(question)}
    return {
        key: Cell(row.product, row.device_class, row.reported_ms, decode(row.document))
        for key, row in rows.items()
        if key in wanted
    }


async def write_cells(database: Database, connection: AsyncConnection, cells: Mapping[CellKey, Cell]) -> None:
    """Write cells over those of the same keys."""
    rows = [
        {
            **key._asdict(),
            "product": each.product,
            "device_class": each.device_class,
            "reported_ms": each.reported_ms,
            "alarms": each.totals.crash_loops + each.totals.signature_failures,
            "document": encode(each.totals),
        }
        for key, each in cells.items()
    ]
    await _replace(database, connection, cell, rows, ("device_class", "reported_ms", "alarms", "document"))


async def read_series(connection: AsyncConnection, keys: Iterable[SeriesKey]) -> dict[SeriesKey, Totals]:
    """Return the rows of these keys that are there."""
    wanted = set(keys)
    question = sql.select(series).where(series.c.product.in_({key.product for key in wanted}))
    question = question.where(series.c.start_ms.in_({key.start_ms for key in wanted}))
    found = {}
    for row in await connection.execute(question):
        key = SeriesKey(row.product, row.start_ms, row.release, row.variant, row.device_class)
        if key in wanted:
            found[key] = decode(row.document)
    return found


async def write_series(database: Database, connection: AsyncConnection, rows: Mapping[SeriesKey, Totals]) -> None:
    """Write rows over those of the same keys."""
    documents = [{**key._asdict(), "document": encode(each)} for key, each in rows.items()]
    await _replace(database, connection, series, documents, ("document",))


async def series_between(
    connection: AsyncConnection, product: str, *, start_ms: int, stop_ms: int
) -> list[tuple[SeriesKey, Totals]]:
    """Return a product's rows with start in [start_ms, stop_ms), oldest first."""
    question = sql.select(series).where(series.c.product == product, series.c.start_ms >= start_ms)
    question = question.where(series.c.start_ms < stop_ms).order_by(series.c.start_ms)
    return [
        (SeriesKey(row.product, row.start_ms, row.release, row.variant, row.device_class), decode(row.document))
        for row in await connection.execute(question)
    ]


async def series_of_release(
    connection: AsyncConnection, product: str, release: str, *, start_ms: int, stop_ms: int
) -> list[Totals]:
    """Return what was reported of a release with start in [start_ms, stop_ms)."""
    question = sql.select(series.c.document).where(series.c.product == product, series.c.release == release)
    question = question.where(series.c.start_ms >= start_ms, series.c.start_ms < stop_ms)
    return [decode(row.document) for row in await connection.execute(question)]


async def cells_between(
    connection: AsyncConnection, product: str, *, start_ms: int, stop_ms: int
) -> list[tuple[CellKey, Cell]]:
    """Return a product's cells with start in [start_ms, stop_ms)."""
    question = sql.select(cell).where(cell.c.product == product, cell.c.start_ms >= start_ms)
    return [
        (
            CellKey(row.device_id, row.release, row.start_ms),
            Cell(row.product, row.device_class, row.reported_ms, decode(row.document)),
        )
        for row in await connection.execute(question.where(cell.c.start_ms < stop_ms))
    ]


async def has_alarms(connection: AsyncConnection, product: str, release: str, *, since_ms: int) -> bool:
    """Return whether a device reported a crash loop or a refused signature with this release since a time."""
    question = sql.select(cell.c.device_id).where(cell.c.product == product, cell.c.release == release)
    question = question.where(cell.c.start_ms >= since_ms, cell.c.alarms > 0).limit(1)
    return (await connection.execute(question)).first() is not None


async def _replace(
    database: Database,
    connection: AsyncConnection,
    table: sql.Table,
    rows: Sequence[Mapping[str, object]],
    changing: Sequence[str],
) -> None:
    if not rows:
        return
    dialect = postgresql if database.is_postgresql else sqlite
    statement = dialect.insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_={name: statement.excluded[name] for name in changing}
    )
    await connection.execute(statement, list(rows))
