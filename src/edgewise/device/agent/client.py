"""Asks an agent on the same device, over its socket or port."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import msgspec

from edgewise.device.agent import status as statuses
from edgewise.device.agent.folder import SOCKET
from edgewise.device.agent.settings import Listen, parse_listen
from edgewise.device.agent.status import Status
from edgewise.errors import AgentError

TIMEOUT_S = 30.0
MOST_ANSWER_BYTES = 1 << 30


class Answered(msgspec.Struct, frozen=True):
    """An answer of the agent: HTTP status, body, and the outcome where it was not in the body."""

    status: int
    body: bytes
    outcome: bytes = b""


class _Connection(http.client.HTTPConnection):
    """HTTP over the agent's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def address(folder: Path) -> Listen:
    """Return where the agent of a folder listens, as its last status says."""
    found = statuses.kept(folder)
    return parse_listen(found.listen if found else f"unix:{folder.resolve() / SOCKET}")


def ask(
    folder: Path, method: str, target: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answered:
    """Ask the agent of a folder. Raises AgentError where none answers."""
    listen = address(folder)
    connection = _Connection(listen.path) if listen.path else http.client.HTTPConnection(listen.host, listen.port)
    connection.timeout = TIMEOUT_S
    try:
        connection.request(method, target, body=body, headers=headers or {})
        reply = connection.getresponse()
        outcome = (reply.getheader("Edgewise-Outcome") or "").encode()
        return Answered(reply.status, reply.read(MOST_ANSWER_BYTES), outcome)
    except (OSError, http.client.HTTPException) as error:
        raise AgentError(
            f"no agent answers at {listen}: {error}",
            required="an agent that runs",
            next_step=f"edgewise agent run --folder {folder}",
        ) from error
    finally:
        connection.close()


def status(folder: Path) -> tuple[Status, bool]:
    """Return the status and whether the agent runs; of one that does not, what it said last. Raises AgentError."""
    try:
        return msgspec.json.decode(ask(folder, "GET", "/v1/status").body, type=Status), True
    except (AgentError, msgspec.DecodeError) as error:
        found = statuses.kept(folder)
        if found is None:
            raise AgentError(
                f"no agent has run in {folder}",
                required="an enrolled device whose agent was started",
                next_step=f"edgewise agent run --folder {folder}",
            ) from error
        return found, False
