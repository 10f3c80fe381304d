"""Takes telemetry in: envelopes wait in the inbox until the next write, and are acknowledged when it is durable.

While one write is under way the next batch gathers by itself, so batches grow with the load and a lone envelope does
not wait. A write that fails is tried again for a while: envelopes are idempotent by their key, and whoever gets no
acknowledgement sends again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec

from edgewise.contracts.telemetry import Envelope, decode_envelope
from edgewise.errors import BusyError, StorageError, TelemetryError
from edgewise.fleet.metrics import Metrics
from edgewise.fleet.store import telemetry
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.devices import Identity
from edgewise.fleet.store.telemetry import Received

MOST_ROWS = 2000
"""Envelopes of one write."""
MOST_TRIES = 6
MOST_AT_ONCE = 500
"""Envelopes of one request."""
DAY_MS = 24 * 3_600_000

log = logging.getLogger("edgewise.fleet.ingest")


class Inbox:
    """Envelopes on their way into the database."""

    def __init__(self, database: Database, metrics: Metrics, *, limit: int) -> None:
        """Start empty; `run` must be running for anything to be written."""
        self._database = database
        self._metrics = metrics
        self._limit = limit
        self._waiting: deque[tuple[Sequence[Received], asyncio.Future[None]]] = deque()
        self._size = 0
        self._something = asyncio.Event()
        self._closing = False

    @property
    def is_busy(self) -> bool:
        """Whether envelopes wait to be written."""
        return self._size > 0

    async def put(self, rows: Sequence[Received]) -> None:
        """Return when the rows are durable. Raises BusyError where the inbox is full, StorageError."""
        if self._size + len(rows) > self._limit:
            self._metrics.envelopes.labels("turned_away").inc(len(rows))
            raise BusyError(f"{self._size} envelopes wait already", next_step="send again later; nothing was kept")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._size += len(rows)
        self._something.set()
        await done

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what comes in until the block ends, then the rest."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._closing = True
            self._something.set()
            await task

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            await self._something.wait()
            batch: list[tuple[Sequence[Received], asyncio.Future[None]]] = []
            rows: list[Received] = []
            while self._waiting and len(rows) < MOST_ROWS:
                batch.append(self._waiting.popleft())
                rows.extend(batch[-1][0])
            if not (self._waiting or self._closing):
                self._something.clear()
            error = await self._write(rows) if rows else None
            self._size -= len(rows)
            self._metrics.inbox.set(self._size)
            for _, done in batch:
                if done.cancelled():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    async def _write(self, rows: Sequence[Received]) -> Exception | None:
        last: Exception | None = None
        for trial in range(MOST_TRIES):
            try:
                async with self._database.write() as connection:
                    new = await telemetry.write(self._database, connection, rows)
            except StorageError as error:
                log.warning("envelopes wait", extra={"count": len(rows), "trial": trial, "reason": error.found})
                last = error
                await asyncio.sleep(0.1 * 2**trial)
            except Exception as error:  # whoever waits is told, and the inbox goes on
                log.exception("envelopes were not written", extra={"count": len(rows)})
                return error
            else:
                self._metrics.envelopes.labels("kept").inc(new)
                self._metrics.envelopes.labels("known").inc(len(rows) - new)
                return None
        return last


def received(body: bytes, device: Identity, *, now_ms: int, days: int) -> list[Received]:
    """Return the envelopes of a request, one or a list of them, checked. Raises TelemetryError: then none is kept.

    Devices send the oldest first. Each is noted a millisecond before the one after it, so that the release which a
    device reported last is known where one request holds windows of two.
    """
    documents = [msgspec.Raw(body)]
    if body.lstrip()[:1] == b"[":
        try:
            documents = msgspec.json.decode(body, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TelemetryError(f"the list cannot be read: {error}") from error
    if len(documents) > MOST_AT_ONCE:
        raise TelemetryError(f"{len(documents)} envelopes", required=f"at most {MOST_AT_ONCE} in a request")
    found = []
    for place, each in enumerate(documents, start=1):
        document = bytes(each)
        envelope = decode_envelope(document)
        check_sender(envelope, device, now_ms=now_ms, days=days)
        at_ms = now_ms - (len(documents) - place)
        found.append(Received(device.id, envelope.boot, envelope.sequence, device.product, at_ms, document))
    return found


def check_sender(envelope: Envelope, device: Identity, *, now_ms: int, days: int) -> None:
    """Raise TelemetryError where an envelope is not of its sender, or so old that its key is no longer kept."""
    if envelope.device != device.id:
        raise TelemetryError(f"an envelope of {envelope.device}, sent by {device.id}", required="the sender's own")
    if envelope.device_class != device.device_class:
        raise TelemetryError(
            f"an envelope of the class {envelope.device_class}", required=f"{device.device_class}, as enrolled"
        )
    if envelope.end_unix_ms < now_ms - days * DAY_MS:
        raise TelemetryError(
            f"a window that ended at {envelope.end_unix_ms} ms",
            required=f"one of the last {days} days",
            next_step="drop it and count it as lost",
        )
