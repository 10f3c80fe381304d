"""Keeps one worker process alive: ends it where it hangs, starts another where it has ended, and counts both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from edgewise.contracts.base import Value
from edgewise.device.session import Shapes
from edgewise.device.worker.frames import Layout
from edgewise.device.worker.process import Process, SilentError
from edgewise.errors import ExecutionError, WorkerError
from edgewise.runtimes.base import Array

CUT = "cut at the deadline"
GRACE_S = 0.07
"""Between asking an execution to end, at its deadline, and ending the process."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0

T = TypeVar("T")


class Limits(Value, kw_only=True):
    """Of a worker process. `memory_mib` is of its address space: code, libraries and threads' stacks included."""

    memory_mib: int = 4096
    start_s: float = 60.0
    """How long it may take to open its model."""
    open_output_bytes: int = 1 << 20
    """Room for each output whose size depends on the input."""
    shared_mib: int = 256
    """Of the memory for inputs and outputs."""


class Counts(NamedTuple):
    """Since the worker was made. Of `starts`, the first is none that anything was wrong with."""

    starts: int
    crashes: int
    """The process ended by itself, ran out of memory, or said something that it cannot have meant."""
    hangs: int
    """It was ended because it did not answer."""


class Worker:
    """Executes in a process of its own; one thread at a time may use it, but any may `stop` it."""

    def __init__(
        self,
        path: Path,
        *,
        variant: str | None = None,
        threads: int = 1,
        shapes: Shapes | None = None,
        state: Sequence[tuple[str, str]] = (),
        limits: Limits | None = None,
    ) -> None:
        """Start opening an extracted bundle's folder or a model file, as `Runtime.open` does; see `await_ready`."""
        self._limits = limits or Limits()
        self._setup = {
            "path": str(path.resolve()),
            "variant": variant,
            "threads": threads,
            "shapes": dict(shapes or {}),
            "state": tuple(state),
            "memory_mib": self._limits.memory_mib,
            "open_output_bytes": self._limits.open_output_bytes,
        }
        self._lock = threading.Lock()
        self._starts = self._crashes = self._hangs = 0
        self._in_a_row = 0
        self._not_before = 0.0
        self._why = ""
        self._is_closed = False
        self._process: Process | None = self._started()

    def await_ready(self, timeout_s: float) -> str:
        """Return the name of the variant, once it is open. Raises ExecutionError and WorkerError."""
        return self.await_layout(timeout_s).variant

    def await_layout(self, timeout_s: float) -> Layout:
        """Return what is open, its inputs and outputs, once it is. Raises ExecutionError and WorkerError."""
        return self._talk(lambda each: each.await_ready(time.monotonic() + timeout_s))

    def run(self, feeds: Mapping[str, Array], *, deadline_ns: int) -> dict[str, Array]:
        """Execute once; returns arrays of the caller's own. The deadline is of `time.monotonic_ns`.

        At the deadline the execution is told to end, 70 ms later the process is ended and another one started, whose
        states are zeros. So is one that did not get the memory it needs. Raises ExecutionError where the model
        fails, is cut or is not open yet, WorkerError where the process ended.
        """
        until = deadline_ns / 1e9

        def once(process: Process) -> dict[str, Array]:
            process.await_ready(until)
            process.run(feeds)
            try:
                return process.outputs(until)
            except SilentError:
                process.stop()
            try:
                return process.outputs(until + GRACE_S)
            except ExecutionError as error:
                raise ExecutionError(CUT) from error

        outputs = self._talk(once)
        self._in_a_row = 0
        return outputs

    def reset(self) -> None:
        """Forget the stream: every state is zeros again. Raises WorkerError."""
        self._talk(lambda each: each.reset(time.monotonic() + GRACE_S) if each.is_ready else None)

    def stop(self) -> None:
        """Make an execution that is under way in another thread fail at the next operator."""
        with self._lock:
            if self._process is not None:
                self._process.stop()

    def counts(self) -> Counts:
        """Count starts, crashes and hangs."""
        return Counts(self._starts, self._crashes, self._hangs)

    @property
    def pid(self) -> int | None:
        """The process that is there now."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _talk(self, what: Callable[[Process], T]) -> T:
        process = self._there()
        try:
            return what(process)
        except SilentError:
            if not process.is_ready and time.monotonic() - process.started < self._limits.start_s:
                raise ExecutionError("the worker is still opening its model") from None
            self._hangs += 1
            raise self._ended(process, "it did not answer") from None
        except WorkerError as error:
            self._crashes += 1
            raise self._ended(process, error.found) from error
        except ExecutionError as error:
            if process.is_ready:
                raise
            self._crashes += 1
            self._ended(process, error.found)
            raise

    def _there(self) -> Process:
        """Return the process, a new one where there is none. Raises WorkerError while none may be started."""
        with self._lock:
            if self._is_closed:
                raise WorkerError("the worker is closed")
            if self._process is None:
                left_s = self._not_before - time.monotonic()
                if left_s > 0:
                    raise WorkerError(
                        f"the worker ended {self._in_a_row} times in a row: {self._why}",
                        next_step=f"the next one is started in {left_s:.1f} s",
                    )
                self._process = self._started()
            return self._process

    def _ended(self, process: Process, why: str) -> WorkerError:
        """End a process and start another: the first time at once, then after ever longer pauses."""
        with self._lock:
            how = process.kill()
            self._why = f"{why} ({how})"
            self._process = None
            self._in_a_row += 1
            pause_s = 0.0 if self._in_a_row == 1 else min(_FIRST_PAUSE_S * 2 ** (self._in_a_row - 2), _LONGEST_PAUSE_S)
            self._not_before = time.monotonic() + pause_s
            if not pause_s and not self._is_closed:
                self._process = self._started()
        return WorkerError(
            f"the worker was ended: {self._why}",
            required="a model that answers, within its memory",
            next_step="another process is started; look at the model where this happens again",
        )

    def _started(self) -> Process:
        self._starts += 1
        return Process(self._setup, most_bytes=self._limits.shared_mib << 20)
