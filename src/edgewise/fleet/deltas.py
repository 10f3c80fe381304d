"""Makes deltas: what a device that runs the old bundle of a rollout fetches instead of the new one.

They lie beside the repository under the digests of the two bundles and are not signed: the digest of what they make is.
Where no delta is worth it, a marker says so, and devices fetch the whole bundle.
"""

from __future__ import annotations

import asyncio
import logging

from edgewise.bundle.delta_make import make_delta
from edgewise.contracts.rollout import Release, Rollout, State
from edgewise.errors import ConflictError, NotFoundError
from edgewise.fleet import conduct
from edgewise.fleet.clock import Clock
from edgewise.fleet.store import releases, rollouts
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.objects import Objects
from edgewise.fleet.store.releases import ReleaseView

FOLDER = "repository/deltas"
MOST_BYTES = 256 << 20
"""Of both bundles together: making a delta takes several times that in memory. Above, the whole bundle is fetched."""

log = logging.getLogger("edgewise.fleet.deltas")


async def exist(objects: Objects, before: ReleaseView, after: ReleaseView) -> bool:
    """Return whether the delta has been made, or found not to be worth it. Raises StorageError."""
    for suffix in ("delta", "full"):
        try:
            await objects.head(_path(before, after, suffix))
        except NotFoundError:
            continue
        return True
    return False


async def make(objects: Objects, before: ReleaseView, after: ReleaseView) -> None:
    """Make the delta and put it where devices look for it. Raises StorageError."""
    found = None
    if before.size_bytes + after.size_bytes <= MOST_BYTES:
        old, new = [await objects.read(each.object) for each in (before, after)]
        found = await asyncio.to_thread(make_delta, old, new)
    if found is None:
        await objects.write(_path(before, after, "full"), b"fetch the whole bundle\n")
    else:
        await objects.write(_path(before, after, "delta"), found.data)
    size = None if found is None else len(found.data)
    names = {"product": after.product, "before": before.version, "after": after.version}
    log.info("delta", extra={**names, "delta_bytes": size, "bundle_bytes": after.size_bytes})


async def make_awaited(database: Database, objects: Objects, clock: Clock) -> None:
    """Make what started rollouts wait for, and let them into their first stage.

    No lock is held meanwhile: two processes may make the same delta, and write the same bytes. Raises StorageError.
    """
    async with database.read() as connection:
        waiting = [
            each.rollout
            for each in await rollouts.listed(connection, states=(State.STAGED,))
            if each.rollout.awaits_deltas
        ]
    for each in waiting:
        before, after = await _bundles(database, each)
        if not await exist(objects, before, after):
            await make(objects, before, after)
        try:
            async with database.write() as connection:
                await conduct.enter(database, connection, each.id, now_ms=clock())
        except ConflictError:  # somebody commanded it meanwhile: the next round sees what it is now
            continue


async def _bundles(database: Database, rollout: Rollout) -> tuple[ReleaseView, ReleaseView]:
    async with database.read() as connection:

        async def kept(release: Release) -> ReleaseView:
            found = await releases.get(connection, release.product, release.version)
            if found is None:
                raise NotFoundError(f"there is no release {release.product} {release.version}")
            return found

        return await kept(rollout.from_release), await kept(rollout.to_release)


def _path(before: ReleaseView, after: ReleaseView, suffix: str) -> str:
    return f"{FOLDER}/{before.sha256}-{after.sha256}.{suffix}"
