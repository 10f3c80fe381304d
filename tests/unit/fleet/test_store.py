"""The tables are what the migrations make, the audit log tells what was changed, and logs hold no secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection

from edgewise.errors import ConfigError, ConflictError
from edgewise.fleet import administer
from edgewise.fleet.logs import JsonLines
from edgewise.fleet.store import audit
from edgewise.fleet.store.database import Database, open_database
from edgewise.fleet.store.objects import open_objects
from edgewise.fleet.store.schema import metadata


def with_database(path: Path, work: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        database = open_database(str(path))
        try:
            await database.migrate()
            await work(database)
        finally:
            await database.close()

    asyncio.run(run())


def test_migrations_make_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async def work(database: Database) -> None:
        await database.migrate()  # a second time does nothing
        async with database.read() as connection:
            assert await connection.run_sync(differences) == []

    with_database(tmp_path / "fleet.db", work)


def test_the_audit_log_refuses_changes_and_shows_those_made_behind_its_back(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"

    async def write(database: Database) -> None:
        for number in range(4):
            async with database.write() as connection:
                await audit.record(
                    database, connection, at_ms=number, actor="server", action="test", subject=str(number)
                )

    with_database(path, write)
    assert administer.check_audit(str(path)) == (4, None)
    with sqlite3.connect(path) as connection:
        for statement in ("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
        connection.execute("DROP TRIGGER audit_keeps_UPDATE")
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3")
    connection.close()
    assert administer.check_audit(str(path)) == (4, 3)


def test_the_first_token_is_given_once(tmp_path: Path) -> None:
    path = str(tmp_path / "fleet.db")
    token = administer.first_token(path)
    with pytest.raises(ConflictError):
        administer.first_token(path)
    assert token.text.encode() not in (tmp_path / "fleet.db").read_bytes()
    assert token.text.split("_", 2)[2].encode() not in (tmp_path / "fleet.db").read_bytes()


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "://"])
def test_a_database_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_database(url)


@pytest.mark.parametrize("url", ["ftp://host/folder", "s3://"])
def test_a_store_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_objects(url)


def test_a_log_line_is_one_json_object() -> None:
    record = logging.makeLogRecord({"msg": "a\nline", "levelname": "WARNING", "rollout": "r1"})
    line = JsonLines().format(record)
    found = json.loads(line)
    assert "\n" not in line
    assert (found["event"], found["level"], found["rollout"]) == ("a\nline", "warning", "r1")
