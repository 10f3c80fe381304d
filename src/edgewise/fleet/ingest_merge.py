"""Merges envelopes into totals: per device and release for the gates, per class and variant for everybody's charts.

Reading, adding, writing back and taking the envelopes away is one transaction under the leader's lock: each envelope
is counted once, whatever is killed when. The adding itself is pure and runs beside the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from edgewise.contracts.telemetry import Envelope, decode_envelope
from edgewise.errors import TelemetryError
from edgewise.fleet.ingest_totals import SERIES_MS, Totals, add, totals_of
from edgewise.fleet.push import request_of
from edgewise.fleet.store import outbound, telemetry
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.telemetry import Cell, CellKey, Received, SeriesKey

DAY_MS = 24 * 3_600_000
MOST_ROWS = 500


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope with the cell and the row of a series that it is added to."""

    row: Received
    envelope: Envelope
    cell: CellKey
    series: SeriesKey


class Sums(msgspec.Struct, kw_only=True):
    """What is written back."""

    cells: dict[CellKey, Cell]
    series: dict[SeriesKey, Totals]
    faults: dict[Received, str]
    """Envelopes that could not be added, and why."""


async def merge_some(database: Database, *, send_on: bool = False) -> int | None:
    """Merge a batch; return how many envelopes it was, or None where another process is at it.

    `send_on` also keeps what was added as a request for a collector.
    """
    async with database.lead("merge") as connection:
        if connection is None:
            return None
        rows = await telemetry.unmerged(connection, limit=MOST_ROWS)
        if not rows:
            return 0
        starts = await telemetry.cuts(connection)
        placed, faults = await asyncio.to_thread(place_all, rows, starts)
        cells = await telemetry.read_cells(connection, (each.cell for each in placed))
        series = await telemetry.read_series(connection, (each.series for each in placed))
        sums = await asyncio.to_thread(add_all, placed, Sums(cells=cells, series=series, faults=faults))
        await telemetry.write_cells(database, connection, sums.cells)
        await telemetry.write_series(database, connection, sums.series)
        await telemetry.mark_merged(connection, rows, sums.faults)
        if send_on and len(sums.faults) < len(rows):
            await outbound.add(connection, await asyncio.to_thread(added_request, placed, sums.faults))
    return len(rows)


def place_all(
    rows: Sequence[Received], starts: Mapping[str, Sequence[int]]
) -> tuple[list[Placed], dict[Received, str]]:
    """Return where each envelope belongs, and those that cannot be read."""
    placed, faults = [], {}
    for row in rows:
        try:
            envelope = decode_envelope(row.document)
        except TelemetryError as error:  # was checked when it came in: written by another version
            faults[row] = str(error)
            continue
        placed.append(place(row, envelope, starts.get(row.product, ())))
    return placed, faults


def place(row: Received, envelope: Envelope, starts: Sequence[int]) -> Placed:
    """Return where an envelope belongs, by the time its window began; a device ahead of its time is set back to ours.

    A cell begins with the day, or with the last rollout or stage that started on it (`starts`, ascending): what a
    device did before one and since is never in one cell.
    """
    began_ms = min(envelope.start_unix_ms, row.received_ms)
    start_ms = began_ms - began_ms % DAY_MS
    earlier = bisect_right(starts, began_ms)
    if earlier:
        start_ms = max(start_ms, starts[earlier - 1])
    return Placed(
        row=row,
        envelope=envelope,
        cell=CellKey(row.device_id, envelope.release, start_ms),
        series=SeriesKey(
            row.product, began_ms - began_ms % SERIES_MS, envelope.release, envelope.variant, envelope.device_class
        ),
    )


def added_request(placed: Sequence[Placed], faults: Mapping[Received, str]) -> bytes:
    """Return a request with what a batch adds to each series."""
    added: dict[SeriesKey, Totals] = {}
    for each in placed:
        if each.row not in faults:
            own = totals_of(each.envelope)
            added[each.series] = add(added[each.series], own) if each.series in added else own
    return request_of(sorted(added.items()))


def add_all(placed: Sequence[Placed], sums: Sums) -> Sums:
    """Add envelopes to what was known. One that does not go with it is a fault, and adds nothing anywhere."""
    for each in placed:
        own = totals_of(each.envelope)
        old = sums.cells.get(each.cell)
        try:
            total = own if old is None else add(old.totals, own)
            row = sums.series.get(each.series)
            whole = own if row is None else add(row, own)
        except ValueError as error:
            sums.faults[each.row] = str(error)
            continue
        reported_ms = max(each.row.received_ms, old.reported_ms if old else 0)
        sums.cells[each.cell] = Cell(each.row.product, each.envelope.device_class, reported_ms, total)
        sums.series[each.series] = whole
    return sums
