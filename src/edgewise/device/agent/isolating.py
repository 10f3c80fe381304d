"""Opens a bundle of one model in a worker process, with everything else that a `Runtime` has."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgewise.device.agent.settings import WorkerOptions
from edgewise.device.audit.log import AuditLog
from edgewise.device.bundled import described, readied
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.isolated import IsolatedSession
from edgewise.device.runtime import Runtime
from edgewise.device.worker import Limits, Worker


def limits_of(options: WorkerOptions) -> Limits:
    """Return the limits of a worker process."""
    return Limits(memory_mib=options.memory_mib, start_s=options.start_s)


def open_isolated(
    folder: Path, options: WorkerOptions, *, fallback: FallbackOptions, audit: AuditLog | None
) -> Runtime:
    """Open an extracted bundle's folder; closing the runtime ends the worker.

    Raises BundleError, ExecutionError, WorkerError where the process does not come up, ConfigError.
    """
    chosen = described(folder, None)
    worker = Worker(folder, limits=limits_of(options))
    try:
        layout = worker.await_layout(options.start_s)
        session = IsolatedSession(worker, layout, hang_s=options.hang_s)
        runtime = Runtime(readied(session, folder, chosen), fallback=fallback, audit=audit)
    except BaseException:
        worker.close()
        raise
    runtime.close = weakref.finalize(runtime, partial(_close, runtime.close, worker))
    return runtime


def _close(watching: Callable[[], object], worker: Worker) -> None:
    watching()
    worker.close()
