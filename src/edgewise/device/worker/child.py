"""The process of a worker: opens a variant, then executes as it is told, until the other side is gone."""

from __future__ import annotations

import mmap
import os
import resource
import socket
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np

from edgewise.device.ready import Ready, of_session
from edgewise.device.session import BoundSession
from edgewise.device.worker.frames import (
    MOST_BYTES,
    STOP,
    Kind,
    Layout,
    Setup,
    encode_shapes,
    frame,
    parse,
    place,
    view,
)
from edgewise.errors import EdgewiseError, OutOfMemoryError


class Child:
    """One opened variant and the other side's wishes."""

    def __init__(self, setup: Setup) -> None:
        """Open the variant. Raises BundleError, ModelError, ExecutionError."""
        ready = _opened(setup)
        self._session = ready.session
        inputs = [
            (name, str(self._session.inputs[name].dtype), self._session.inputs[name].shape)
            for name in ready.session.given
        ]
        outputs = [(name, str(dtype), shape) for name, (shape, dtype) in self._session.outputs.items()]
        slots = place(inputs + outputs, start=0, open_bytes=setup.open_output_bytes)
        self.layout = Layout(
            variant=ready.variant, bundle=ready.bundle, inputs=slots[: len(inputs)], outputs=slots[len(inputs) :]
        )
        os.ftruncate(setup.shared, self.layout.size)
        self._memory = memoryview(mmap.mmap(setup.shared, self.layout.size))
        self._feeds = {each.name: view(self._memory, each) for each in self.layout.inputs}
        self._lock = threading.Lock()
        self._sequence = 0

    def obey(self, control: int) -> None:
        """End the execution that the other side names, and this process when it is gone."""
        while len(data := os.read(control, STOP.size)) == STOP.size:
            with self._lock:
                if STOP.unpack(data) == (self._sequence,):
                    self._session.stop()
        os._exit(0)

    def answer(self, data: bytes) -> bytes:
        """Do what a frame says, and return the frame to send back."""
        kind, sequence, _ = parse(data)
        if kind is Kind.RESET:
            self._session.reset()
            return frame(Kind.DONE, sequence)
        with self._lock:
            self._sequence = sequence
            self._session.allow()
        try:
            shapes = self._run()
        except (OutOfMemoryError, MemoryError) as error:
            # The runtime's arena now takes twice what it was refused whenever it grows, or all that is left:
            # whatever else needs memory here would fail.
            return frame(Kind.EXHAUSTED, sequence, _in_one_line(error))
        except EdgewiseError as error:
            return frame(Kind.FAILED, sequence, _in_one_line(error))
        finally:
            with self._lock:
                self._sequence = 0
        return frame(Kind.DONE, sequence, shapes)

    def _run(self) -> bytes:
        found = self._session.run(self._feeds)
        shapes = []
        for slot in self.layout.outputs:
            output = found[slot.name]
            if slot.shape is None:
                shapes.append(output.shape)
            np.copyto(view(self._memory, slot, output.shape), output)
        return encode_shapes(shapes) if shapes else b""


def _opened(setup: Setup) -> Ready:
    path = Path(setup.path)
    if path.is_dir():
        from edgewise.device.bundled import open_variant  # noqa: PLC0415 - a model file needs no code of signatures

        return open_variant(path, setup.variant, state=setup.state)
    session = BoundSession(path, threads=setup.threads, shapes=setup.shapes, state=setup.state)
    session.run_from({})
    return of_session(session, variant=setup.variant or path.stem)


def _in_one_line(error: BaseException) -> bytes:
    text = str(error) if isinstance(error, EdgewiseError) else f"{type(error).__name__}: {error}"
    return "; ".join(text.splitlines()).encode()


def main(setup: Setup) -> None:
    """Limit this process, open, and answer."""
    limit = setup.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=setup.socket) as talk:
        try:
            child = Child(setup)
        except (EdgewiseError, OSError, MemoryError) as error:
            talk.send(frame(Kind.FAILED, 0, _in_one_line(error)))
            return
        threading.Thread(target=child.obey, args=(setup.control,), daemon=True).start()
        talk.send(frame(Kind.READY, 0, msgspec.json.encode(child.layout)))
        while data := talk.recv(MOST_BYTES):
            talk.send(child.answer(data))


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Setup))
