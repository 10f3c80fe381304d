"""Runs `edgewise` as a user does: each command is a process of its own, and is kept for the story."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edgewise.errors import WorkerError

_EDGEWISE = (sys.executable, "-c", "from edgewise.cli import start; start()")
_TIMEOUT_S = 600.0
_STOP_S = 10.0


class Commands:
    """Runs commands in one folder; `ran` holds those that a user would have to type, secrets left out."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Run in `folder`."""
        self._folder = folder
        self._environment = dict(environment)
        self.ran: list[str] = []

    def run(self, *words: str | Path, secrets: Mapping[str, str] | None = None, quiet: bool = False) -> str:
        """Run one command to its end and return its stdout.

        `secrets` go by the environment; `quiet` keeps the command out of `ran`. Raises WorkerError where it fails.
        """
        line = [str(word) for word in words]
        if not quiet:
            self.ran.append(shlex.join(["edgewise", *line]))
        try:
            done = subprocess.run(
                [*_EDGEWISE, *line],
                cwd=self._folder,
                env={**self._environment, **(secrets or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(line, f"took longer than {_TIMEOUT_S:g} s") from error
        if done.returncode:
            raise _failed(line, done.stderr.strip()[-1000:] or f"ended with {done.returncode}")
        return done.stdout

    def start(self, *words: str | Path, log: IO[bytes], quiet: bool = False) -> subprocess.Popen[bytes]:
        """Start a command that goes on until it is stopped."""
        line = [str(word) for word in words]
        if not quiet:
            self.ran.append(shlex.join(["edgewise", *line]) + " &")
        return subprocess.Popen(
            [*_EDGEWISE, *line],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and end those that do not."""
    for each in processes:
        if each.poll() is None:
            each.terminate()
    for each in processes:
        try:
            each.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def _failed(line: Sequence[str], why: str) -> WorkerError:
    return WorkerError(
        f"edgewise {shlex.join(line)}: {why}",
        required="a command that ends well",
        next_step="run it by hand to see more; its files are in the demo's output folder",
    )
