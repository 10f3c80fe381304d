"""Agents as processes of their own, as a device's supervisor starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgewise.device.agent import client
from edgewise.errors import AgentError

START = "from edgewise.cli import start; start()"
COMMAND = (sys.executable, "-c", START, "agent")


def agent(*arguments: str | Path, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run one verb to its end."""
    environment = {**os.environ, "PYTHONWARNINGS": "error", "EDGEWISE_TOKEN": token}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )


def status(folder: Path) -> dict[str, Any]:
    """Return what the agent of a folder says, running or not; nothing before it has said anything."""
    try:
        found, runs = client.status(folder)
    except AgentError:
        return {}
    return {"running": runs, **msgspec.to_builtins(found)}


@contextlib.contextmanager
def running(folder: Path, *, first: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Start the agent of an enrolled folder; at the end it is told to stop, and must.

    `first` is Python that its process executes before.
    """
    log = folder / "log.jsonl"
    with log.open("ab") as out:
        command = [sys.executable, "-c", f"{first}{START}", "agent", "run", "--folder", str(folder)]
        process = subprocess.Popen(command, stderr=out)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def awaited(folder: Path, holds: Callable[[dict[str, Any]], bool], wait_s: float = 30) -> dict[str, Any]:
    """Return the first status that holds; what was said last where time is up."""
    until = time.monotonic() + wait_s
    while True:
        found = status(folder)
        if holds(found) or time.monotonic() > until:
            return found
        time.sleep(0.1)
