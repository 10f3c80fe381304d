"""Sends telemetry on to an OpenTelemetry collector, as OTLP/HTTP with delta temporality.

What a merge adds is kept as one request in the same transaction, so that nothing is lost when the server or the
collector is killed. A request whose acknowledgement was lost is sent again: the collector may then see it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import httpx

from edgewise.contracts.histogram import Histogram
from edgewise.errors import ConfigError
from edgewise.fleet import ingest_otlp
from edgewise.fleet.clock import Clock
from edgewise.fleet.ingest_totals import SERIES_MS, Totals
from edgewise.fleet.store import outbound
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.telemetry import SeriesKey

TIMEOUT_S = 10.0
CLAIM_MS = 60_000
"""A process that was killed while it sent something gives it up after this time."""
MOST_WAITING = 10_000
"""Requests, each of up to 500 envelopes. While a collector is away for longer, the oldest are dropped, and logged."""
AT_ONCE = 50

log = logging.getLogger("edgewise.fleet.push")


def check_url(url: str) -> None:
    """Raise ConfigError unless this is the address of a collector's metrics."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(
            f"--otlp {url[:200]!r} is no address",
            required="http:// or https://, a host and a path",
            next_step="write for example --otlp http://127.0.0.1:4318/v1/metrics",
        )


def request_of(rows: Iterable[tuple[SeriesKey, Totals]]) -> bytes:
    """Return an OTLP metrics request with these totals, as protobuf."""
    return ingest_otlp.exported(point for key, totals in rows for point in points(key, totals))


def points(key: SeriesKey, totals: Totals) -> Iterator[ingest_otlp.Point]:
    """Yield every figure of a row of a series."""
    attributes = {
        "edgewise.product": key.product,
        "edgewise.release": key.release,
        "edgewise.variant": key.variant,
        "edgewise.device_class": key.device_class,
    }
    values: dict[str, Histogram | int] = {**totals.histograms, **totals.counters, "crashes": totals.crashes}
    for name, value in values.items():
        yield ingest_otlp.Point(
            attributes=attributes, start_ms=key.start_ms, end_ms=key.start_ms + SERIES_MS, value=value, name=name
        )


async def push(database: Database, url: str, clock: Clock) -> bool:
    """Send what waits; return whether there is more. Raises StorageError."""
    async with database.write() as connection:
        dropped = await outbound.drop_oldest(connection, most=MOST_WAITING)
    if dropped:
        log.error("dropped: the collector is away for too long", extra={"requests": dropped})
    async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
        for _ in range(AT_ONCE):
            now_ms = clock()
            async with database.write() as connection:
                mine = await outbound.claim(connection, now_ms=now_ms, expired_ms=now_ms - CLAIM_MS)
            if mine is None:
                return False
            taken = await _sent(client, url, mine.document)
            async with database.write() as connection:
                await (outbound.delete if taken else outbound.release)(connection, mine.id)
            if not taken:
                return False
    return True


async def _sent(client: httpx.AsyncClient, url: str, document: bytes) -> bool:
    """Send one request; return whether to forget it. What the collector refuses for good is logged and forgotten."""
    headers = {"content-type": ingest_otlp.PROTOBUF}
    try:
        answer = await client.post(url, content=document, headers=headers)
    except httpx.HTTPError as error:
        log.warning("the collector did not answer", extra={"reason": type(error).__name__})
        return False
    if answer.is_success:
        return True
    # OTLP/HTTP, "Failures": these are to be tried again, all others are not.
    if answer.status_code in {429, 502, 503, 504}:
        log.warning("the collector is busy", extra={"status": answer.status_code})
        return False
    log.error("the collector refused a request", extra={"status": answer.status_code, "bytes": len(document)})
    return True
