"""Opens the database and hands out transactions: SQLite for one machine, PostgreSQL for a fleet."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from edgewise.errors import ConfigError, InputError, StorageError
from edgewise.fleet.store.schema import metadata

MIGRATIONS = Path(__file__).parents[1] / "migrations"
DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}
LOCK_SPACE = 0x45444745  # "EDGE": the first half of our advisory locks' keys, so that they meet nobody else's
LOCKS = {"migrate": 1, "audit": 2, "merge": 3, "rollouts": 4, "alerts": 5, "export": 6, "prune": 7, "publish": 8}


class Database:
    """An open database. Use `read` and `write` for transactions, `lead` for work that one process does."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take an engine; `open_database` makes one."""
        self.engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"

    def on_statement(self, heard: Callable[[], None]) -> None:
        """Call `heard` before each statement."""
        sql.event.listen(self.engine.sync_engine, "before_cursor_execute", lambda *_: heard())

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that only reads. Raises StorageError where the database is away."""
        async with _wrapped(), self.engine.connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction, kept if the block ends well and undone if not. Raises StorageError."""
        async with _wrapped(), self.engine.connect() as connection:
            await connection.execution_options(edgewise_writes=True)
            async with connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def lead(self, work: str) -> AsyncIterator[AsyncConnection | None]:
        """Yield a writing transaction that holds the lock of this work, or None while another process holds it.

        The lock ends with the transaction, also when the process is killed. SQLite lets one writer in at a time anyway.
        """
        async with self.write() as connection:
            if self.is_postgresql:
                question = sql.select(sql.func.pg_try_advisory_xact_lock(LOCK_SPACE, LOCKS[work]))
                if not (await connection.execute(question)).scalar_one():
                    yield None
                    return
            yield connection

    async def lock(self, connection: AsyncConnection, work: str) -> None:
        """Wait for the lock of this work; it ends with the transaction."""
        if self.is_postgresql:
            await connection.execute(sql.select(sql.func.pg_advisory_xact_lock(LOCK_SPACE, LOCKS[work])))

    async def migrate(self) -> None:
        """Bring the tables up to date; several processes may start at once."""
        async with self.write() as connection:
            await self.lock(connection, "migrate")
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def open_database(url: str) -> Database:
    """Return the database of a URL (`postgresql://...`, `sqlite:///path`) or of a path to an SQLite file.

    Nothing is connected yet. Raises ConfigError where the URL is none, or of a database we do not know.
    """
    try:
        parsed = make_url(url if "://" in url else f"sqlite:///{url}")
    except ArgumentError as error:
        raise ConfigError(
            "--database is no URL", required="postgresql://user@host/name, sqlite:///file or a path"
        ) from error
    kind = parsed.drivername.partition("+")[0]
    if kind not in DRIVERS:
        raise ConfigError(f"--database names {kind!r}", required="postgresql://, sqlite:/// or a path")
    parsed = parsed.set(drivername=DRIVERS[kind])
    if kind != "sqlite":
        return Database(create_async_engine(parsed, pool_size=10, max_overflow=10, pool_pre_ping=True))
    if parsed.database in {None, "", ":memory:"}:
        raise ConfigError("--database names no file", required="sqlite:///file or a path")
    try:
        Path(str(parsed.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--database {parsed.database}: {error.strerror}", required="a folder to write to") from error
    engine = create_async_engine(parsed, connect_args={"timeout": 30})
    sql.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    sql.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return Database(engine)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below: sqlite3 would say it too late
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: one that upgrades later can fail with "database is locked".
    writes = connection.get_execution_options().get("edgewise_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection) -> None:
    script = ScriptDirectory(str(MIGRATIONS))

    def steps(revision: Any, _context: object) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as alembic.command, which wants an env.py

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=metadata)
        environment.run_migrations()


@contextlib.asynccontextmanager
async def _wrapped() -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:  # a caller's own question: does this exist already?
        raise
    except (OSError, DBAPIError, sqlite3.OperationalError, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if str(getattr(cause, "sqlstate", "")).startswith(
            "22"
        ):  # "data exception": a NUL in a text, a number too large
            raise InputError("the request holds a value that the database cannot keep") from error
        raise StorageError(
            f"the database did not answer: {type(cause).__name__}", next_step="see that it runs; what was sent is kept"
        ) from error
