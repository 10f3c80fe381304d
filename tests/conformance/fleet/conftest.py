"""One running server per pair of backends, for all laws."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgewise.fleet import administer
from edgewise.keys.files import save_pair
from tests.conformance.fleet.backends import Backend, backend, free_port, postgresql, s3, start_server
from tests.conformance.fleet.clients import Fleet
from tests.unit.bundle.bundles import PRIVATE

__all__ = ["backend", "fleet", "postgresql", "s3"]


@pytest.fixture(scope="package")
def fleet(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Yield a running server with a first operator.

    It ends with this folder: until the end of the session it would look for work ten times a second.
    """
    token = administer.make_token(backend.database, role="operator", products=(), note="", days=1).text
    signer = administer.make_token(backend.database, role="signer", products=(), note="", days=1).text
    keys = tmp_path_factory.mktemp("keys")
    save_pair(PRIVATE, keys / "seal.pem", passphrase=None)
    options, port = ("--tick", "0.1", "--trusted", str(keys)), free_port()
    log = tmp_path_factory.mktemp("log") / "server.jsonl"
    server = start_server(backend, port, *options, log=log)
    running = Fleet(f"http://127.0.0.1:{port}", token, signer)
    try:
        yield running
    finally:
        running.close()
        server.terminate()
        assert server.wait(timeout=30) == 0
        assert not any(secret.split("_", 2)[2] in log.read_text() for secret in (token, signer)), "a secret in the log"
