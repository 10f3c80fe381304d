"""The agent's folder: what lies where, and that one process at a time works on it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from edgewise.device.trust.writing import refused
from edgewise.errors import AgentError

ENROLMENT = "enrolment"
SETTINGS = "agent.toml"
SOCKET = "agent.sock"
STATUS = "status.json"
"""As it was after the last poll, for when the agent does not run."""
AUDIT = "audit"
"""The log of every fallback."""
LOCK = "agent.lock"
IMAGES, DIRECTOR = "images", "director"
"""Trusted metadata of the two repositories."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises AgentError where another process does, OutputError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise refused(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AgentError(
                f"another process works on {folder}",
                required="one agent a folder",
                next_step="stop the agent that runs, or give another --folder",
            ) from error
        yield
