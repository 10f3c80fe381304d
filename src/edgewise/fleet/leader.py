"""Work that one process does at a time: each round under its lock, whichever process is first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from edgewise.errors import EdgewiseError
from edgewise.fleet.api.services import Services
from edgewise.fleet.conduct import advance
from edgewise.fleet.deltas import make_awaited
from edgewise.fleet.direct import deciding
from edgewise.fleet.ending import GRACE_S, let_end
from edgewise.fleet.ingest_merge import MOST_ROWS, merge_some
from edgewise.fleet.push import push
from edgewise.fleet.store import devices, rollouts, telemetry
from edgewise.fleet.watch import evaluate

log = logging.getLogger("edgewise.fleet.leader")

Work = Callable[[Services], Awaitable[bool]]
"""One round; returns whether there is more to do at once."""

DAY_MS = 24 * 3_600_000


async def merge(services: Services) -> bool:
    """Merge envelopes into totals; while envelopes come in, half of the time is left to them."""
    began = time.monotonic()
    count = await merge_some(services.database, send_on=services.settings.otlp is not None)
    if services.inbox.is_busy:
        await asyncio.sleep(time.monotonic() - began)
    return count == MOST_ROWS


async def conduct(services: Services) -> bool:
    """Step the rollouts."""
    await advance(services.database, now_ms=services.clock())
    return False


async def alert(services: Services) -> bool:
    """Open and close alerts."""
    await evaluate(services.database, now_ms=services.clock())
    return False


async def publish(services: Services) -> bool:
    """Publish what rollouts decided."""
    if services.director is not None:
        async with services.database.lead("publish") as connection:
            if connection is not None:
                found = deciding([each.rollout for each in await rollouts.listed(connection)])
                now = datetime.fromtimestamp(services.clock() / 1000, UTC)
                await asyncio.to_thread(services.director.publish, found, now)
    return False


async def deltas(services: Services) -> bool:
    """Make the deltas that rollouts wait for."""
    if services.director is not None:
        await make_awaited(services.database, services.objects, services.clock)
    return False


async def send_on(services: Services) -> bool:
    """Send telemetry on to a collector."""
    if services.settings.otlp is None:
        return False
    return await push(services.database, services.settings.otlp, services.clock)


async def prune(services: Services) -> bool:
    """Forget nonces and keys of envelopes that would be refused anyway."""
    now_ms = services.clock()
    async with services.database.lead("prune") as connection:
        if connection is not None:
            await devices.prune_nonces(connection, now_ms=now_ms)
            before_ms = now_ms - (services.settings.envelope_days + 1) * DAY_MS
            await telemetry.prune(connection, before_ms=before_ms)
            services.metrics.unmerged.set(await telemetry.count_unmerged(connection))
    return False


WORK: dict[str, Work] = {
    "merge": merge,
    "rollouts": conduct,
    "alerts": alert,
    "deltas": deltas,
    "publish": publish,
    "send on": send_on,
    "prune": prune,
}


@contextlib.asynccontextmanager
async def working(
    services: Services, work: Mapping[str, Work] = MappingProxyType(WORK), *, grace_s: float = GRACE_S
) -> AsyncIterator[None]:
    """Do all work in the background until the block ends.

    Rounds under way then come to their own end for `grace_s` seconds: a statement that is cancelled in its middle may
    hang in its driver. What is left is cancelled.
    """
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_repeat(name, each, services, stop)) for name, each in work.items()]
    try:
        yield
    finally:
        stop.set()
        await let_end(tasks, grace_s)


async def _repeat(name: str, work: Work, services: Services, stop: asyncio.Event) -> None:
    while not stop.is_set():
        more = False
        try:
            more = await work(services)
            services.metrics.ticks.labels(name, "done").inc()
        except EdgewiseError as error:
            services.metrics.ticks.labels(name, "failed").inc()
            log.warning("a round failed and is tried again", extra={"work": name, "reason": error.found})
        except Exception:  # one fault must not end the work for good
            services.metrics.ticks.labels(name, "failed").inc()
            log.exception("a round failed", extra={"work": name})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.01 if more else services.settings.tick_s)
