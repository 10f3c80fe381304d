"""Start the measured process, give it streams to run, and end it whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.units import NS_PER_MS
from edgewise.errors import ExecutionError, WorkerError
from edgewise.forge.tasks.base import Feeds
from edgewise.forge.verify.streams.child import Done, Order, Ready, Setup
from edgewise.forge.verify.streams.pace import NS_PER_S, Stream

_CHILD = Path(__file__).with_name("child.py")
_SOURCES = Path(__file__).parents[4]
_START_SECONDS = 120.0
_TAIL = 400
T = TypeVar("T")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a cold start took, in milliseconds, from the moment the process was asked for."""

    process_ms: float
    """Until the interpreter ran the first line of ours."""
    import_ms: float
    load_ms: float
    first_ms: float
    data_bytes: int

    @property
    def total_ms(self) -> float:
        """Until the first answer of the model."""
        return self.process_ms + self.import_ms + self.load_ms + self.first_ms


class Worker:
    """One process with one model. Use it as a context; it is killed at the end."""

    def __init__(
        self,
        model: Path,
        feeds: Sequence[Feeds],
        *,
        runtime: RuntimeName,
        threads: int,
        folder: Path,
        data_limit_bytes: int | None = None,
    ) -> None:
        """Start the process and wait until the model has answered once on every feed.

        `folder` receives the arrays. Raises ExecutionError where the runtime refuses the model (under a memory
        limit: where that is not enough), WorkerError where the process dies or hangs.
        """
        self._folder = folder
        arrays = folder / "feeds.npz"
        if not arrays.exists():  # by number, for np.savez takes names as keywords and has some of its own
            np.savez(arrays, *(value for feed in feeds for value in feed.values()))
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(_SOURCES), *([inherited] if inherited else [])])
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the process
        asked = time.monotonic_ns()
        # -P keeps this folder off the path: the child is run by its file, not as part of a package.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path},
        )
        setup = Setup(
            runtime=runtime,
            model=str(model.resolve()),
            threads=threads,
            feeds=str(arrays),
            names=tuple(tuple(feed) for feed in feeds),
            data_limit_bytes=data_limit_bytes,
        )
        try:
            ready = self._ask(setup, Ready, seconds=_START_SECONDS)
        except BaseException:
            self.close()
            raise
        if ready.refusal:
            self.close()
            raise ExecutionError(ready.refusal)
        self.start = Start(
            process_ms=(ready.born_ns - asked) / NS_PER_MS,
            import_ms=ready.import_ms,
            load_ms=ready.load_ms,
            first_ms=ready.first_ms,
            data_bytes=ready.data_bytes,
        )

    @property
    def process(self) -> int:
        """The number of the process."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Return the worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def stream(self, *, fps: float, seconds: float) -> Stream:
        """Run frames at a fixed rate for about so long. Raises ExecutionError and WorkerError."""
        period_ns = round(NS_PER_S / fps)
        frames = max(1, round(seconds * fps))
        path = self._folder / f"stream-{self.process}.npz"
        order = Order(period_ns=period_ns, frames=frames, path=str(path))
        done = self._ask(order, Done, seconds=3 * frames * period_ns / NS_PER_S + _START_SECONDS)
        if done.refusal:
            raise ExecutionError(done.refusal)
        with np.load(path, allow_pickle=False) as arrays:
            return Stream(
                period_ns=period_ns,
                begun_ns=arrays["begun"],
                done_ns=arrays["done"],
                dropped=done.dropped,
                looked_ns=arrays["looked"],
                resident_bytes=arrays["resident"],
            )

    @contextmanager
    def slowed(self, *, awake: float, period_s: float = 0.02) -> Iterator[None]:
        """Stop and wake the process in turns: it runs for the share `awake` of every `period_s` seconds."""
        end = threading.Event()

        def turns() -> None:
            while not end.is_set():
                self._process.send_signal(signal.SIGSTOP)
                end.wait((1 - awake) * period_s)
                self._process.send_signal(signal.SIGCONT)
                end.wait(awake * period_s)

        thread = threading.Thread(target=turns, daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the process and take its pipes away."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # what it was told last it never read
                    continue
        self._errors.close()

    def _ask(self, question: object, kind: type[T], *, seconds: float) -> T:
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise WorkerError("the measured process has no pipes")
        watch = threading.Timer(seconds, process.kill)
        watch.start()
        try:
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watch.cancel()
        if not line:
            raise WorkerError(f"the measured process ended with {process.wait()}: {self._said()}")
        return msgspec.json.decode(line, type=kind)

    def _said(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip()
        return lines[-_TAIL:] or "it said nothing (out of memory, or out of time)"
