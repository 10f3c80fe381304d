"""What the command line does on the server's machine, each in an event loop of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import sqlalchemy as sql

from edgewise.errors import ConfigError, ConflictError
from edgewise.fleet import serve as server
from edgewise.fleet.clock import system_ms
from edgewise.fleet.logs import log_to
from edgewise.fleet.settings import Settings
from edgewise.fleet.store import audit, tokens
from edgewise.fleet.store.database import Database, open_database
from edgewise.fleet.store.schema import audit as audit_table
from edgewise.fleet.store.tokens import Role, Secret

T = TypeVar("T")
DAY_MS = 24 * 3_600_000
ACTOR = "command line"


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop. Raises ConfigError, StorageError."""
    log_to(sys.stderr)
    asyncio.run(server.serve(settings))


def migrate(url: str) -> None:
    """Bring the tables up to date. Raises ConfigError, StorageError."""
    _with(url, Database.migrate)


def first_token(url: str) -> Secret:
    """Create the tables and the first operator's token. Raises ConflictError where there are tokens."""

    async def make(database: Database) -> Secret:
        await database.migrate()
        async with database.read() as connection:
            if await tokens.listed(connection):
                raise ConflictError(
                    "the fleet has tokens already",
                    next_step="`edgewise fleet token --role operator` makes another one",
                )
        return await _add(database, role=Role.OPERATOR, products=(), note="the first", days=90)

    return _with(url, make)


def make_token(url: str, *, role: str, products: tuple[str, ...], note: str, days: int) -> Secret:
    """Make a token. Raises ConfigError where there is no such role."""
    if role not in set(Role):
        raise ConfigError(f"--role {role}", required=" or ".join(Role))

    async def make(database: Database) -> Secret:
        await database.migrate()
        return await _add(database, role=Role(role), products=products, note=note, days=days)

    return _with(url, make)


def check_audit(url: str) -> tuple[int, int | None]:
    """Return how many lines the audit log has, and the first that does not follow, or None."""

    async def check(database: Database) -> tuple[int, int | None]:
        async with database.read() as connection:
            count = sql.select(sql.func.count()).select_from(audit_table)
            return (await connection.execute(count)).scalar_one(), await audit.broken_at(connection)

    return _with(url, check)


async def _add(database: Database, *, role: Role, products: tuple[str, ...], note: str, days: int) -> Secret:
    now_ms = system_ms()
    async with database.write() as connection:
        made = await tokens.add(
            connection, role=role, products=products, note=note, now_ms=now_ms, expires_ms=now_ms + days * DAY_MS
        )
        await audit.record(
            database,
            connection,
            at_ms=now_ms,
            actor=ACTOR,
            action="token.make",
            subject=made.id,
            detail={"role": role, "products": products, "note": note},
        )
    return made


def _with(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        database = open_database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())
