"""Peak memory of a variant, in a process that never did anything else.

A process that has already quantized, profiled or run another model has a heap whose free parts the
next model reuses, and a high-water mark that belongs to the past. So a fresh process imports the
runtime, notes what it holds, and only then loads and runs the model (`memory_child`). The pages of
the runtime's code that a first session touches (about 10 MiB of ONNX Runtime) count as the model's:
a device that runs it needs them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.units import mib
from edgewise.errors import ExecutionError, WorkerError
from edgewise.runtimes import memory_child
from edgewise.runtimes.base import Array
from edgewise.runtimes.memory_child import Answer, Question

_CHILD = Path(memory_child.__file__)
_SOURCES = Path(__file__).parents[3]
_TAIL = 400


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory in MiB, all but `process_mib` above what the process held before the model.

    `peak_mib` is what a budget limits: the highest of loading and running.
    """

    peak_mib: float
    load_peak_mib: float
    """While loading: the file, the graph and the weights in the runtime's own layout, some twice."""
    resident_mib: float
    """Held once loaded: the model's bytes."""
    arena_mib: float
    """On top of that while running: activations and scratch space."""
    process_mib: float
    """The peak of the whole process, interpreter and runtime library included."""


def measure_memory(
    model: Path,
    feeds: Sequence[Mapping[str, Array]],
    *,
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME,
    threads: int = 1,
    timeout_s: float = 120.0,
) -> Memory:
    """Load `model` in a fresh process and run it once on each of `feeds`.

    Raises ExecutionError where the runtime refuses the model, WorkerError where the process dies,
    hangs, or cannot tell its memory.
    """
    with tempfile.TemporaryDirectory(prefix="edgewise-memory-") as folder:
        arrays = Path(folder) / "feeds.npz"
        # By number, for np.savez takes names as keywords and has some of its own.
        np.savez(arrays, *(value for feed in feeds for value in feed.values()))
        question = Question(
            runtime=runtime,
            model=str(model.resolve()),
            threads=threads,
            feeds=str(arrays),
            names=tuple(tuple(feed) for feed in feeds),
        )
        answer = _ask(question, timeout_s)
    if answer.refusal:
        raise ExecutionError(answer.refusal)
    peak = max(answer.load_peak_bytes, answer.run_peak_bytes)
    return Memory(
        peak_mib=_above(peak, answer.before_bytes),
        load_peak_mib=_above(answer.load_peak_bytes, answer.before_bytes),
        resident_mib=_above(answer.loaded_bytes, answer.before_bytes),
        arena_mib=_above(answer.run_peak_bytes, answer.loaded_bytes),
        process_mib=mib(peak),
    )


def _ask(question: Question, timeout_s: float) -> Answer:
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_SOURCES), *([inherited] if inherited else [])])
    try:
        # -P keeps this folder off the path: the child is run by its file, not as part of a package.
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=msgspec.json.encode(question),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerError(
            f"measuring the memory of {question.model} took more than {timeout_s:g} s",
            next_step="look whether the model runs at all, or give it more time",
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-_TAIL:]
        raise WorkerError(
            f"the process that measured the memory of {question.model} ended with {done.returncode}: {said}"
        )
    return msgspec.json.decode(done.stdout, type=Answer)


def _above(bytes_high: int, bytes_low: int) -> float:
    return mib(max(0, bytes_high - bytes_low))
