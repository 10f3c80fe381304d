"""What the two processes say to each other: fixed frames on a socket, arrays in memory that both map.

Each message of the socket (SOCK_SEQPACKET, which keeps them apart) is one frame: kind, sequence, then text or shapes.
Nothing in it is executed, and the parent believes nothing that it has not checked: the model is not its own.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum

import msgspec
import numpy as np

from edgewise.contracts.base import Value
from edgewise.errors import WorkerError
from edgewise.runtimes.base import Array

_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"ewk1"
STOP = struct.Struct("<Q")
"""On the control pipe: the sequence of the execution that shall end."""
MOST_BYTES = 1 << 16
"""Of one frame."""
_MOST_AXES = 8
_ALIGNMENT = 64


class Kind(IntEnum):
    """What a frame is."""

    RUN = 1
    RESET = 2
    READY = 3
    DONE = 4
    FAILED = 5
    EXHAUSTED = 6
    """It has failed for want of memory, and ends."""


class Setup(Value, kw_only=True):
    """What the child opens, as its one argument, in JSON. Numbers are of open files."""

    path: str
    variant: str | None
    threads: int
    shapes: dict[str, tuple[int, ...]]
    state: tuple[tuple[str, str], ...]
    memory_mib: int
    open_output_bytes: int
    socket: int
    control: int
    shared: int


class Slot(Value, kw_only=True):
    """Where an array lies in the shared memory. The shape is None where each execution says it."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    offset: int
    size: int


class Layout(Value, kw_only=True):
    """What the child has opened, and where its arrays lie."""

    variant: str
    bundle: str | None
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """Bytes of the shared memory; never 0, which cannot be mapped."""
        return max((each.offset + each.size for each in (*self.inputs, *self.outputs)), default=0) or 1


def frame(kind: Kind, sequence: int, rest: bytes = b"") -> bytes:
    """Return a frame; a text that is too long is cut."""
    return _HEAD.pack(_MAGIC, kind, sequence) + rest[: MOST_BYTES - _HEAD.size]


def parse(data: bytes) -> tuple[Kind, int, bytes]:
    """Return kind, sequence and the rest. Raises WorkerError."""
    try:
        magic, kind, sequence = _HEAD.unpack_from(data)
        if magic == _MAGIC:
            return Kind(kind), sequence, data[_HEAD.size :]
    except (struct.error, ValueError):
        pass
    raise WorkerError(f"the worker sent {len(data)} bytes that are no frame", next_step="look at the model")


def place(arrays: list[tuple[str, str, tuple[int, ...] | None]], *, start: int, open_bytes: int) -> tuple[Slot, ...]:
    """Lay out arrays (name, type, shape) one after the other."""
    slots, offset = [], start
    for name, dtype, shape in arrays:
        size = open_bytes if shape is None else math.prod(shape) * np.dtype(dtype).itemsize
        slots.append(Slot(name=name, dtype=dtype, shape=shape, offset=offset, size=size))
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    return tuple(slots)


def check(layout: Layout, *, most: int) -> None:
    """Raise WorkerError where a layout is not one that `place` makes within `most` bytes."""
    asked = [(each.name, each.dtype, each.shape) for each in (*layout.inputs, *layout.outputs)]
    try:
        kinds = {np.dtype(dtype).kind for _, dtype, _ in asked}
        small = all(shape is None or (len(shape) <= _MOST_AXES and min(shape, default=0) >= 0) for *_, shape in asked)
        open_bytes = max((each.size for each in layout.outputs if each.shape is None), default=0)
        same = (*layout.inputs, *layout.outputs) == place(asked, start=0, open_bytes=open_bytes)
    except (TypeError, ValueError) as error:
        raise WorkerError(f"the worker tells of arrays that cannot be: {error}") from error
    if not (kinds <= set("biuf") and small and same and layout.size <= most):
        raise WorkerError("the worker tells of arrays that cannot be", required=f"numbers, within {most} bytes")


def view(memory: memoryview, slot: Slot, shape: tuple[int, ...] | None = None) -> Array:
    """Return the array at a place, as it is in the shared memory. Raises WorkerError for a shape without room."""
    sizes = slot.shape if shape is None else shape
    if sizes is None:
        raise WorkerError(f"output {slot.name!r} without a shape")
    count = math.prod(sizes)
    dtype = np.dtype(slot.dtype)
    if count * dtype.itemsize > slot.size:
        raise WorkerError(
            f"output {slot.name!r} is {dtype}{list(sizes)}",
            required=f"at most {slot.size} bytes",
            next_step="raise `open_output_bytes` of the worker's limits",
        )
    return np.frombuffer(memory, dtype, count, slot.offset).reshape(sizes)


def encode_shapes(shapes: list[tuple[int, ...]]) -> bytes:
    """Return the shapes of the outputs that have none of their own."""
    return msgspec.json.encode(shapes)


def decode_shapes(data: bytes, *, count: int) -> list[tuple[int, ...]]:
    """Return `count` shapes. Raises WorkerError."""
    try:
        shapes = msgspec.json.decode(data, type=list[tuple[int, ...]]) if count else []
    except msgspec.MsgspecError as error:
        raise WorkerError(f"the worker's shapes cannot be read: {error}") from error
    if len(shapes) != count or any(len(each) > _MOST_AXES or min(each, default=0) < 0 for each in shapes):
        raise WorkerError("the worker's shapes cannot be", required=f"{count} of them")
    return shapes
