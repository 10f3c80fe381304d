"""One running server per pair of backends, for all laws."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from edgewise.fleet import administer
from edgewise.keys.files import save_pair
from tests.conformance.fleet.backends import Backend, backend, backends, free_port, postgresql, s3, start_server
from tests.conformance.fleet.clients import Fleet
from tests.unit.bundle.bundles import PRIVATE

__all__ = ["backend", "backends", "fleet", "postgresql", "s3", "servers"]


class Servers:
    """A running server for each pair of backends that was asked for.

    All go on until this folder is done: tests of a file take turns with both pairs, and a start costs as much as a
    minute of idling. No longer than that, for each looks for work five times a second.
    """

    def __init__(self, folders: pytest.TempPathFactory, until: contextlib.ExitStack) -> None:
        self._folders, self._until = folders, until
        self._running: dict[str, Fleet] = {}

    def of(self, backend: Backend) -> Fleet:
        """Return the one over a pair, with a first operator."""
        if backend.name not in self._running:
            self._running[backend.name] = self._until.enter_context(self._served(backend))
        return self._running[backend.name]

    @contextlib.contextmanager
    def _served(self, backend: Backend) -> Iterator[Fleet]:
        token = administer.make_token(backend.database, role="operator", products=(), note="", days=1).text
        signer = administer.make_token(backend.database, role="signer", products=(), note="", days=1).text
        keys = self._folders.mktemp("keys")
        save_pair(PRIVATE, keys / "seal.pem", passphrase=None)
        options, port = ("--tick", "0.2", "--trusted", str(keys)), free_port()
        log = self._folders.mktemp("log") / "server.jsonl"
        server = start_server(backend, port, *options, log=log)
        running = Fleet(f"http://127.0.0.1:{port}", token, signer)
        try:
            yield running
        finally:
            running.close()
            server.terminate()
            assert server.wait(timeout=30) == 0
            assert not any(secret.split("_", 2)[2] in log.read_text() for secret in (token, signer)), "a secret in it"


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Yield what starts servers, and ends them after the last test of this folder."""
    with contextlib.ExitStack() as until:
        yield Servers(tmp_path_factory, until)


@pytest.fixture
def fleet(servers: Servers, backend: Backend) -> Fleet:
    """Return a running server with a first operator, over either pair."""
    return servers.of(backend)
