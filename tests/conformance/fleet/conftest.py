"""One running server per pair of backends, for all laws."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgewise.fleet import administer
from tests.conformance.fleet.backends import Backend, backend, free_port, postgresql, s3, start_server
from tests.conformance.fleet.clients import Fleet

__all__ = ["backend", "fleet", "postgresql", "s3"]


@pytest.fixture(scope="session")
def fleet(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Yield a running server with a first operator."""
    token = administer.first_token(backend.database).text
    port = free_port()
    server = start_server(backend, port, "--tick", "0.1", log=tmp_path_factory.mktemp("log") / "server.jsonl")
    running = Fleet(f"http://127.0.0.1:{port}", token)
    try:
        yield running
    finally:
        running.close()
        server.terminate()
        assert server.wait(timeout=30) == 0
