"""Devices as real processes, and the application on each: it asks its own agent for inferences over a socket."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.demo import demo_folder
from edgewise.demo.loop.commands import Commands, stop
from edgewise.demo.loop.server import CANARY, ROOT, Server

RATE_HZ = 5.0
"""Inferences that each application asks for, on average."""
_BURST = 5
"""So many frames in a row, as a camera that sees something has them: most find code and weights still in the caches."""
REPORT_S = 2
_THREADS = 4
_ANSWER_S = 10.0


class Running(msgspec.Struct):
    """The parts of an agent's status that the demo looks at."""

    release: str | None = None
    variant: str | None = None


class Devices:
    """A site of devices; canaries come first."""

    def __init__(self, folder: Path, commands: Commands, *, count: int, canaries: int) -> None:
        """Name them; nothing is started yet."""
        self._folder = folder
        self._commands = commands
        self.names = tuple(f"gateway-{number + 1:02d}" for number in range(count))
        self._canaries = canaries
        self._sockets = Path(tempfile.mkdtemp(prefix="edgewise-"))  # a socket's path must be short
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop every agent."""
        stop(list(self._processes.values()))
        if self._log is not None:
            self._log.close()
        for each in self._sockets.iterdir():
            each.unlink()
        self._sockets.rmdir()

    def enrol(self, server: Server) -> None:
        """Let all devices join, each with a one-time token and the roots that the repository's owner wrote."""
        tokens = server.grants(self._canaries, labels=(CANARY,))
        tokens += server.grants(len(self.names) - self._canaries, labels=())

        def join(place: int) -> None:
            name, token = self.names[place], tokens[place]
            folder = self._folder / name
            words = ("agent", "enroll", "--server", server.url, "--device", name, "--root", ROOT, "--folder", folder)
            self._commands.run(*words, secrets={"EDGEWISE_TOKEN": token}, quiet=place > 0)
            (folder / "agent.toml").write_text(f"report_s = {REPORT_S}\n")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(join, range(len(self.names))))

    def start(self) -> None:
        """Start every agent as a process of its own."""
        self._log = (self._folder / "agents.log").open("ab")
        for name in self.names:
            words = ("agent", "run", "--folder", self._folder / name, "--listen", f"unix:{self.socket(name)}")
            self._processes[name] = self._commands.start(*words, log=self._log, quiet=name != self.names[0])

    def socket(self, name: str) -> Path:
        """Return where a device's agent answers its applications."""
        return self._sockets / name

    def running(self) -> dict[str, str | None]:
        """Return the release that each device runs, None where it runs none or does not answer."""
        return {name: self._release(name) for name in self.names}

    def dead(self) -> list[str]:
        """Return the devices whose agent has ended."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def _release(self, name: str) -> str | None:
        try:
            status, body = _asked(self.socket(name), "GET", "/v1/status", b"")
            return msgspec.json.decode(body, type=Running).release if status == http.client.OK else None
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return None


class Applications:
    """One application a device: shows images to the model, some in a row, and counts what comes back."""

    def __init__(self, devices: Devices) -> None:
        """Take the images of the demo's test split."""
        self._devices = devices
        with np.load(demo_folder() / "test.npz") as data:
            self._images: NDArray[np.float32] = data["x"].astype(np.float32)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Ask until the block ends."""
        threads = [threading.Thread(target=self._ask, args=(each,), daemon=True) for each in range(_THREADS)]
        for each in threads:
            each.start()
        try:
            yield self
        finally:
            self._ended.set()
            for each in threads:
                each.join(_ANSWER_S)

    def counts(self) -> dict[str, int]:
        """Return how many answers each kind of outcome had, and how many requests failed."""
        with self._lock:
            return dict(self._counts)

    def _ask(self, part: int) -> None:
        names: Sequence[str] = self._devices.names[part::_THREADS]
        due, step = time.monotonic(), _BURST / RATE_HZ / max(len(names), 1)
        number = part
        while not self._ended.is_set():
            for name in names:
                for _ in range(_BURST):
                    image = self._images[number % len(self._images)][None]
                    number += _THREADS
                    self._count(name, image)
                due = max(due + step, time.monotonic() - 1)
                if self._ended.wait(max(due - time.monotonic(), 0)):
                    return

    def _count(self, name: str, image: NDArray[np.float32]) -> None:
        try:
            status, body = _asked(self._devices.socket(name), "POST", "/v1/infer", image.tobytes())
            kind = msgspec.json.decode(body)["outcome"]["kind"] if status == http.client.OK else f"status {status}"
        except (OSError, http.client.HTTPException, msgspec.DecodeError, KeyError):
            kind = "unreachable"
        with self._lock:
            self._counts[kind] += 1


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _asked(path: Path, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    connection = _Local(path)
    try:
        connection.request(method, target, body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
