"""Opens a bundle of one model in worker processes, with everything else that a runtime has."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.device.agent.settings import WorkerOptions
from edgewise.device.audit.log import AuditLog
from edgewise.device.bundled import described, golden_inputs, readied
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.isolated import IsolatedSession
from edgewise.device.ready import Ready
from edgewise.device.runtime import Runtime
from edgewise.device.worker import Limits, Worker

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime


def limits_of(options: WorkerOptions) -> Limits:
    """Return the limits of a worker process."""
    return Limits(memory_mib=options.memory_mib, start_s=options.start_s)


def open_isolated(
    folder: Path, options: WorkerOptions, *, fallback: FallbackOptions, audit: AuditLog | None
) -> Runtime:
    """Open an extracted bundle's folder; closing the runtime ends the worker.

    Raises BundleError, ExecutionError, WorkerError where the process does not come up, ConfigError.
    """
    ready, worker = _opened(folder, None, options)
    try:
        runtime = Runtime(ready, fallback=fallback, audit=audit)
    except BaseException:
        worker.close()
        raise
    runtime.close = weakref.finalize(runtime, partial(_close, runtime.close, worker))
    return runtime


def open_governed(
    folder: Path, options: WorkerOptions, *, fallback: FallbackOptions, audit: AuditLog | None
) -> AdaptiveRuntime:
    """Open each variant of an extracted bundle in a worker of its own, and let the governor choose; raises as above.

    Those of variants that do not join are ended at once, the others when the runtime is closed.
    """
    from edgewise.device.governor.adaptive import AdaptiveRuntime, resident_mib  # noqa: PLC0415 - it loads meters

    workers: dict[str, Worker] = {}

    def opened(name: str | None) -> tuple[Ready, float | None]:
        ready, worker = _opened(folder, name, options)
        workers[ready.variant] = worker
        return ready, resident_mib(worker.pid)

    try:
        runtime = AdaptiveRuntime.open(folder, fallback=fallback, audit=audit, opener=opened)
    except BaseException:
        for worker in workers.values():
            worker.close()
        raise
    for name in workers.keys() - {each.variant for each in runtime.members}:
        workers[name].close()
    return runtime


def _opened(folder: Path, name: str | None, options: WorkerOptions) -> tuple[Ready, Worker]:
    """Return a variant, the chosen one where `name` is None, and the worker that it is open in."""
    chosen = described(folder, name)
    worker = Worker(folder, variant=name, limits=limits_of(options))
    try:
        layout = worker.await_layout(options.start_s)
        (sample, *_) = golden_inputs(folder, chosen.manifest)
        session = IsolatedSession(worker, layout, hang_s=options.hang_s, sample=sample)
        return readied(session, folder, chosen), worker
    except BaseException:
        worker.close()
        raise


def _close(watching: Callable[[], object], worker: Worker) -> None:
    watching()
    worker.close()
