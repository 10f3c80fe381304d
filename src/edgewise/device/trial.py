"""Try a bundle on this device before it counts: in a process of its own, with limits on memory and time.

A model that crashes the runtime, takes all memory or never returns ends that process, not the agent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from edgewise.contracts.base import Value
from edgewise.errors import (
    BundleError,
    CustomOperatorError,
    ExecutionError,
    GoldenError,
    OutOfMemoryError,
    OverBudgetError,
    UnsafeModelError,
    WorkerError,
)

KINDS = (
    GoldenError,
    OverBudgetError,
    ExecutionError,
    UnsafeModelError,
    CustomOperatorError,
    OutOfMemoryError,
    BundleError,
)
"""What a trial may end with, beside a worker that died."""


class Limits(Value):
    """Of one trial: address space in MiB (code, libraries and threads' stacks included), seconds of wall time."""

    memory_mib: int = 4096
    timeout_s: float = 120.0


class Tried(Value, kw_only=True):
    """What a trial found. `latency_p50_ms` is of the chosen variant; `problem` is empty where all is well."""

    kind: str = ""
    problem: str = ""
    latency_p50_ms: float | None = None


def try_bundle(folder: Path, limits: Limits | None = None) -> Tried:
    """Load the chosen and the fallback variant, compare golden outputs, time the chosen one against the budget.

    Raises GoldenError, OverBudgetError, ExecutionError where the runtime refuses, WorkerError where the process
    crashed or passed a limit.
    """
    limits = limits or Limits()
    command = [sys.executable, "-m", "edgewise.device.trial_child", str(folder), str(limits.memory_mib)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _worker(f"it took longer than {limits.timeout_s:g} s") from error
    try:
        found = msgspec.json.decode(done.stdout, type=Tried)
    except msgspec.MsgspecError as error:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _worker(f"it ended with {done.returncode}{': ' if words else ''}{''.join(words)[:300]}") from error
    if found.problem:
        kinds = {each.__name__: each for each in KINDS}
        raise kinds.get(found.kind, ExecutionError)(
            found.problem,
            required="a bundle that this device runs as it was sealed, within its budget",
            next_step="the device goes on with the bundle before; look at the release and this class of device",
        )
    return found


def _worker(what: str) -> WorkerError:
    return WorkerError(
        f"the trial of the bundle failed: {what}",
        required="a bundle that loads and runs within the limits",
        next_step="the device goes on with the bundle before; look at the release",
    )
