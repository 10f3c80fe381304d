"""Watches the error budget: merged telemetry in, burn rates out."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.outcome import OutcomeKind
from edgewise.fleet.alerts import Outcomes, burns
from edgewise.fleet.ingest_totals import OUTCOME, SERIES_MS, Totals
from edgewise.fleet.store import alerts, telemetry
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.telemetry import SeriesKey

OBJECTIVE = 0.99
"""This share of requests gets an answer that a model gave, here or elsewhere."""
WINDOW_MS = 6 * 3_600_000
"""The longest window of a rule."""
BAD = (OutcomeKind.CONSERVATIVE, OutcomeKind.REFUSED)
"""No model answered."""


def outcomes(rows: Iterable[tuple[SeriesKey, Totals]], *, now_ms: int) -> list[Outcomes]:
    """Return what requests became. A row counts at its end, the one that still fills up counts now.

    So a window holds at least its length, and up to five minutes more.
    """
    found = []
    for key, totals in rows:
        counts = {kind: totals.counters.get(f"{OUTCOME}{kind}", 0) for kind in OutcomeKind}
        at_ms = min(key.start_ms + SERIES_MS, now_ms)
        found.append(
            Outcomes(at_s=at_ms / 1000, total=sum(counts.values()), bad=sum(counts[kind] for kind in BAD)),
        )
    return found


async def recent(connection: AsyncConnection, product: str, *, now_ms: int) -> list[Outcomes]:
    """Return what a product's requests became within the longest window."""
    start_ms = now_ms - WINDOW_MS - SERIES_MS
    rows = await telemetry.series_between(connection, product, start_ms=start_ms, stop_ms=now_ms + 1)
    return outcomes(rows, now_ms=now_ms)


async def evaluate(database: Database, *, now_ms: int) -> None:
    """Open and close alerts of all products; does nothing where another process is at it."""
    async with database.lead("alerts") as connection:
        if connection is None:
            return
        products = await alerts.reporting(connection, since_ms=now_ms - WINDOW_MS - SERIES_MS)
        products |= {each.product for each in await alerts.listed(connection, only_open=True)}
        for product in sorted(products):
            found = burns(await recent(connection, product, now_ms=now_ms), objective=OBJECTIVE, now_s=now_ms / 1000)
            await alerts.note(database, connection, product, found, now_ms=now_ms)
