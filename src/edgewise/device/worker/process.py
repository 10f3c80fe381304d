"""One worker process, from its start to its end; `worker` decides when there is another."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from edgewise.device.worker.frames import (
    MOST_BYTES,
    STOP,
    Kind,
    Layout,
    Setup,
    check,
    decode_shapes,
    frame,
    parse,
    view,
)
from edgewise.errors import ExecutionError, WorkerError
from edgewise.runtimes.base import Array


class SilentError(Exception):
    """The process has not answered by the time given."""


class Process:
    """A child, its socket, its control pipe and the memory shared with it. Raises WorkerError where it is gone."""

    def __init__(self, setup: dict[str, Any], *, most_bytes: int) -> None:
        """Start it; `setup` holds the fields of `Setup` but for the open files."""
        self._most_bytes = most_bytes
        self._sequence = 0
        self._layout: Layout | None = None
        self._memory: memoryview | None = None
        self._feeds: dict[str, Array] = {}
        self.started = time.monotonic()
        self._talk, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, self._control = os.pipe()
        os.set_blocking(self._control, False)
        self._shared = os.memfd_create("edgewise-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fds = {"socket": theirs.fileno(), "control": control, "shared": self._shared}
        given = msgspec.json.encode(msgspec.convert(setup | fds, Setup)).decode()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgewise.device.worker.child", given],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=tuple(fds.values()),
                start_new_session=True,
            )
        except OSError as error:
            self._close()
            raise WorkerError(f"the worker process could not be started: {error}") from error
        finally:
            theirs.close()
            os.close(control)

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has opened its model."""
        return self._layout is not None

    def await_ready(self, until: float) -> Layout:
        """Return what it has opened. Raises SilentError, and ExecutionError where it cannot open it."""
        if self._layout is not None:
            return self._layout
        kind, _, rest = self._receive(until)
        if kind is not Kind.READY:
            raise ExecutionError(f"the worker could not open its model: {rest.decode(errors='replace')[:500]}")
        try:
            layout = msgspec.json.decode(rest, type=Layout)
        except msgspec.MsgspecError as error:
            raise WorkerError(f"the worker's layout cannot be read: {error}") from error
        check(layout, most=self._most_bytes)
        # A child that made the memory shorter would end this process by SIGBUS.
        fcntl.fcntl(self._shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        if os.fstat(self._shared).st_size != layout.size:
            raise WorkerError("the worker's memory does not have the size of its layout")
        self._memory = memoryview(mmap.mmap(self._shared, layout.size))
        self._feeds = {each.name: view(self._memory, each) for each in layout.inputs}
        self._layout = layout
        return layout

    def run(self, feeds: Mapping[str, Array]) -> None:
        """Begin an execution. Raises ExecutionError where the inputs are not the model's."""
        if feeds.keys() != self._feeds.keys():
            raise ExecutionError(f"inputs {sorted(feeds)}", required=f"exactly {sorted(self._feeds)}")
        for name, array in feeds.items():
            mine = self._feeds[name]
            if array.shape != mine.shape or array.dtype != mine.dtype:
                raise ExecutionError(
                    f"input {name!r} is {array.dtype}{list(array.shape)}", required=f"{mine.dtype}{list(mine.shape)}"
                )
        for name, array in feeds.items():
            np.copyto(self._feeds[name], array)
        self._send(Kind.RUN)

    def reset(self, until: float) -> None:
        """Set the states to zeros. Raises SilentError."""
        self._send(Kind.RESET)
        self.outputs(until)

    def outputs(self, until: float) -> dict[str, Array]:
        """Return copies of what the execution gave.

        Raises SilentError, ExecutionError where it failed, WorkerError where the process ends, for want of memory say.
        """
        kind, sequence, rest = self._receive(until)
        if kind not in {Kind.DONE, Kind.FAILED, Kind.EXHAUSTED} or sequence != self._sequence:
            raise WorkerError(f"the worker answered {kind.name} {sequence} to {self._sequence}")
        if kind is Kind.EXHAUSTED:
            raise WorkerError(rest.decode(errors="replace")[:500])
        if kind is Kind.FAILED:
            raise ExecutionError(rest.decode(errors="replace")[:500])
        layout, memory = self._layout, self._memory
        if layout is None or memory is None or (not rest and any(each.shape is None for each in layout.outputs)):
            return {}
        shapes = iter(decode_shapes(rest, count=sum(each.shape is None for each in layout.outputs)))
        return {
            each.name: view(memory, each, next(shapes) if each.shape is None else None).copy()
            for each in layout.outputs
        }

    def stop(self) -> None:
        """Ask for the end of the execution that is under way."""
        with contextlib.suppress(OSError):
            os.write(self._control, STOP.pack(self._sequence))

    def kill(self) -> str:
        """End it at once, if it has not ended by itself; return how it ended."""
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        code = self._child.wait()
        self._close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def _send(self, kind: Kind) -> None:
        self._sequence += 1
        try:
            self._talk.send(frame(kind, self._sequence))
        except OSError as error:
            raise _gone() from error

    def _receive(self, until: float) -> tuple[Kind, int, bytes]:
        self._talk.settimeout(max(1e-6, until - time.monotonic()))
        try:
            data = self._talk.recv(MOST_BYTES)
        except TimeoutError:
            raise SilentError from None
        except OSError as error:
            raise _gone() from error
        if not data:
            raise _gone()
        return parse(data)

    def _close(self) -> None:
        self._talk.close()
        os.close(self._control)
        os.close(self._shared)


def _gone() -> WorkerError:
    return WorkerError("the worker process ended")
