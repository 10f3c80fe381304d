"""The fresh process of `memory`: reads a Question on stdin, writes an Answer on stdout.

It imports the runtimes and nothing else of the workshop, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.errors import EdgewiseError
from edgewise.runtimes import runtime

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Written to clear_refs, sets the peak (VmHWM) to what is resident now; see proc_pid_clear_refs(5)."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and run: the arrays stand in an npz file in the order of `names`, run by run."""

    runtime: RuntimeName
    model: str
    threads: int
    feeds: str
    names: tuple[tuple[str, ...], ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Resident bytes of the process: before the model, peaks of loading and running, and between."""

    before_bytes: int = 0
    load_peak_bytes: int = 0
    loaded_bytes: int = 0
    run_peak_bytes: int = 0
    refusal: str = ""


def answer(question: Question) -> Answer:
    """Load, run, and note the memory at each step."""
    executor = runtime(question.runtime)
    executor.version()  # imports the library, which is not the model's memory
    with np.load(question.feeds, allow_pickle=False) as arrays:
        values = iter([arrays[name] for name in arrays.files])
    feeds = [{name: next(values) for name in names} for names in question.names]
    gc.collect()
    _reset_peak()
    before = _resident_bytes()
    try:
        session = executor.load(Path(question.model), threads=question.threads)
        load_peak = _peak_bytes()
        _reset_peak()
        loaded = _resident_bytes()
        for feed in feeds:
            session.run(feed)
    except EdgewiseError as error:
        return Answer(refusal=str(error))
    return Answer(
        before_bytes=before,
        load_peak_bytes=load_peak,
        loaded_bytes=loaded,
        run_peak_bytes=_peak_bytes(),
    )


def _reset_peak() -> None:
    """Forget earlier peaks, where the system lets a process do so."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        # Without it the peak is that since the start: importing holds less than a model that matters.
        return


def _resident_bytes() -> int:
    return _status_bytes("VmRSS:") or _peak_bytes()


def _peak_bytes() -> int:
    # ru_maxrss is in KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return _status_bytes("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(key: str) -> int:
    """Return a line of /proc/self/status, or 0 on a system without it."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


if __name__ == "__main__":
    found = answer(msgspec.json.decode(sys.stdin.buffer.read(), type=Question))
    os.write(sys.stdout.fileno(), msgspec.json.encode(found))
