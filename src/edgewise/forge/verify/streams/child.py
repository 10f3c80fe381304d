"""The process that is measured: loads one model, then runs streams as it is told, one order a line.

It imports the runtimes and little else, so that what it takes to start is what a device's process takes.
"""

from __future__ import annotations

import time

_BORN_NS = time.monotonic_ns()

import os  # noqa: E402 - the clock is read before anything is imported
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import msgspec  # noqa: E402
import numpy as np  # noqa: E402

from edgewise.contracts.target import RuntimeName  # noqa: E402
from edgewise.contracts.units import NS_PER_MS  # noqa: E402
from edgewise.errors import EdgewiseError  # noqa: E402
from edgewise.forge.verify.streams.pace import pace  # noqa: E402
from edgewise.runtimes import runtime  # noqa: E402

_STATUS, _STATM = Path("/proc/self/status"), "/proc/self/statm"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: what to load. Arrays stand in an npz in the order of `names`, feed by feed."""

    runtime: RuntimeName
    model: str
    threads: int
    feeds: str
    names: tuple[tuple[str, ...], ...]
    data_limit_bytes: int | None = None
    """Private memory that loading and running may take on top of what the process has by then (RLIMIT_DATA)."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer: what it took to get there. `refusal` where the model could not be loaded or run."""

    born_ns: int = 0
    """CLOCK_MONOTONIC when the interpreter reached the first line of this file."""
    import_ms: float = 0.0
    load_ms: float = 0.0
    first_ms: float = 0.0
    data_bytes: int = 0
    """Private memory that loading the model and running every feed once added; 0 where the system does not tell."""
    refusal: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Run a stream and write its arrays to an npz at `path`."""

    period_ns: int
    frames: int
    path: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A stream has been run."""

    dropped: int = 0
    refusal: str = ""


def serve() -> None:
    """Load, answer, then run streams until there are no more orders."""
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setup)
    executor = runtime(setup.runtime)
    executor.version()  # imports the library
    imported = time.monotonic_ns()
    with np.load(setup.feeds, allow_pickle=False) as arrays:
        values = iter([arrays[name] for name in arrays.files])
    feeds = [{name: next(values) for name in names} for names in setup.names]
    before = _data_bytes()
    if setup.data_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (before + setup.data_limit_bytes,) * 2)
    try:
        begin = time.monotonic_ns()
        session = executor.load(Path(setup.model), threads=setup.threads)
        loaded = time.monotonic_ns()
        session.run(feeds[0])
        first = time.monotonic_ns()
        for feed in feeds:
            session.run(feed)
    except (EdgewiseError, MemoryError) as error:
        _answer(Ready(refusal=str(error).splitlines()[0] if str(error) else "out of memory"))
        return
    _answer(
        Ready(
            born_ns=_BORN_NS,
            import_ms=(imported - _BORN_NS) / NS_PER_MS,
            load_ms=(loaded - begin) / NS_PER_MS,
            first_ms=(first - loaded) / NS_PER_MS,
            data_bytes=max(0, _data_bytes() - before),
        )
    )
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            found = pace(
                lambda frame: session.run(feeds[frame % len(feeds)]),
                period_ns=order.period_ns,
                frames=order.frames,
                clock=time.monotonic_ns,
                sleep=time.sleep,
                resident=resident_bytes,
            )
        except (EdgewiseError, MemoryError) as error:
            _answer(Done(refusal=str(error).splitlines()[0] if str(error) else "out of memory"))
            return
        np.savez(
            order.path,
            begun=found.begun_ns,
            done=found.done_ns,
            looked=found.looked_ns,
            resident=found.resident_bytes,
        )
        _answer(Done(dropped=found.dropped))


def resident_bytes() -> int:
    """Return what this process holds in memory now, or its peak on a system that tells no more."""
    try:
        with open(_STATM, encoding="ascii") as file:  # noqa: PTH123 - 400 times in a measured process
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _data_bytes() -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)


def _answer(value: object) -> None:
    os.write(1, msgspec.json.encode(value) + b"\n")


if __name__ == "__main__":
    serve()
