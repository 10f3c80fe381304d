"""Moves rollouts: a command or the evidence decides; the change, its events and its audit are one transaction."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.rollout import Command, Event, Release, Rollout, State
from edgewise.errors import ConflictError
from edgewise.fleet.evidence import table
from edgewise.fleet.ingest_evidence import BASELINE_MS, device_evidence, stage_starts
from edgewise.fleet.rollouts import Moved, command, create, deltas_made, due, first, step
from edgewise.fleet.store import audit, devices, rollouts, telemetry
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.rollouts import ACTIVE, Kept

log = logging.getLogger("edgewise.fleet.rollouts")


async def add(database: Database, connection: AsyncConnection, new: Rollout, *, now_ms: int, actor: str) -> Kept:
    """Add a draft. Raises RolloutError unless it is a fresh one."""
    made, events = create(new, now_s=now_ms / 1000, actor=actor)
    kept = await rollouts.add(connection, made, events, now_ms=now_ms)
    await _audit(database, connection, made, events, now_ms=now_ms)
    return kept


async def begin(
    database: Database, connection: AsyncConnection, release: Release, *, now_ms: int, actor: str, reason: str
) -> Kept:
    """Make a release what every device of its product runs. Raises ConflictError where something was rolled out."""
    earlier = await rollouts.listed(connection, product=release.product)
    if any(each.rollout.start_s is not None for each in earlier):
        raise ConflictError(
            f"{release.product} has been rolled out before",
            required="a product that runs nowhere yet",
            next_step="draft a rollout from the release that runs",
        )
    made, events = first(release, name=new_id(), salt=new_salt(), now_s=now_ms / 1000, actor=actor, reason=reason)
    kept = await rollouts.add(connection, made, events, now_ms=now_ms)
    await _audit(database, connection, made, events, now_ms=now_ms)
    return kept


def new_id() -> str:
    """Return a name for a rollout."""
    return secrets.token_hex(8)


def new_salt() -> str:
    """Return a salt that nobody can foresee: who is first is drawn anew each time."""
    return secrets.token_hex(16)


async def obey(
    database: Database,
    connection: AsyncConnection,
    kept: Kept,
    asked: Command,
    *,
    now_ms: int,
    actor: str,
    reason: str,
    awaits_deltas: bool = False,
) -> Kept:
    """Carry a command out. Raises RolloutError where the state does not allow it, ConflictError."""
    if asked is Command.START:
        await _check_alone(connection, kept.rollout)
    moved, events = command(
        kept.rollout, asked, now_s=now_ms / 1000, actor=actor, reason=reason, awaits_deltas=awaits_deltas
    )
    return await _saved(database, connection, kept, moved, events, now_ms=now_ms)


async def enter(database: Database, connection: AsyncConnection, name: str, *, now_ms: int) -> None:
    """Let a rollout whose deltas have been made enter its first stage. Raises ConflictError."""
    kept = await rollouts.get(connection, name)
    if kept is not None:
        moved, events = deltas_made(kept.rollout, now_s=now_ms / 1000)
        if events:
            await _saved(database, connection, kept, moved, events, now_ms=now_ms)


async def _saved(
    database: Database,
    connection: AsyncConnection,
    kept: Kept,
    moved: Rollout,
    events: Sequence[Event],
    *,
    now_ms: int,
) -> Kept:
    saved = await rollouts.save(connection, kept, moved, events, now_ms=now_ms)
    await _audit(database, connection, moved, events, now_ms=now_ms)
    return saved


async def advance(database: Database, *, now_ms: int) -> int | None:
    """Step every active rollout once; return how many moved, or None where another process is at it."""
    async with database.lead("rollouts") as connection:
        if connection is None:
            return None
        moved = 0
        for kept in await rollouts.listed(connection, states=ACTIVE):
            moved += await _step(database, connection, kept, now_ms=now_ms)
    return moved


async def _step(database: Database, connection: AsyncConnection, kept: Kept, *, now_ms: int) -> bool:
    rollout, now_s = kept.rollout, now_ms / 1000
    start_ms = round((rollout.start_s or now_s) * 1000)
    product, release = rollout.to_release.product, rollout.to_release.digest
    if due(rollout, now_s) is None and not await telemetry.has_alarms(connection, product, release, since_ms=start_ms):
        return False
    members = await devices.members(connection, product)
    cells = await telemetry.cells_between(connection, product, start_ms=start_ms - BASELINE_MS, stop_ms=now_ms + 1)
    starts = stage_starts(await rollouts.events(connection, rollout.id, limit=100_000))

    def judge() -> Moved:
        found = table(rollout.policy, device_evidence(rollout, members, cells, starts), now_s=now_s)
        return step(rollout, found, now_s=now_s)

    stepped, events = await asyncio.to_thread(judge)
    if not events:
        return False
    await _saved(database, connection, kept, stepped, events, now_ms=now_ms)
    for each in events:
        log.info("rollout", extra={"rollout": rollout.id, "kind": each.kind, "stage": each.stage, "why": each.reason})
    return True


async def _check_alone(connection: AsyncConnection, rollout: Rollout) -> None:
    product = rollout.to_release.product
    others = await rollouts.listed(connection, product=product, states=ACTIVE)
    if others:
        raise ConflictError(
            f"rollout {others[0].rollout.id} of {product} is under way",
            required="one rollout of a product at a time",
            next_step="wait for its end, or abort it",
        )


async def _audit(
    database: Database, connection: AsyncConnection, rollout: Rollout, events: Sequence[Event], *, now_ms: int
) -> None:
    for each in events:
        decided = None if each.decision is None else each.decision.answer
        await audit.record(
            database,
            connection,
            at_ms=now_ms,
            actor=each.actor or "server",
            action=f"rollout.{each.kind}",
            subject=rollout.id,
            product=rollout.to_release.product,
            detail={"stage": each.stage, "reason": each.reason, "answer": decided, "state": rollout.state},
        )


def serving(found: Sequence[Rollout]) -> Rollout | None:
    """Return the rollout that says what devices of its product run: the active one, else the last completed.

    `found` is newest first.
    """
    for states in (ACTIVE, (State.COMPLETED,)):
        for each in found:
            if each.state in states:
                return each
    return None
