"""Opens the bundles that a description names, and joins them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from edgewise.device.pipeline.described import Description, Place, checked, connected, policy
from edgewise.device.pipeline.models import runtime_stage, worker_stage
from edgewise.device.pipeline.pipeline import Pipeline
from edgewise.device.runtime import Runtime
from edgewise.device.worker import Limits, Worker


class BundlePipeline:
    """A pipeline of bundles with all that it has opened; close it, or use it in a `with` block."""

    def __init__(self, description: Description, folders: Mapping[str, Path], *, limits: Limits | None = None) -> None:
        """Open every stage from its folder; golden inputs are run. `limits` are of each worker.

        Raises ConfigError, BundleError, ModelError, ExecutionError and WorkerError; then nothing stays open.
        """
        self.runtimes: dict[str, Runtime] = {}
        self.workers: dict[str, Worker] = {}
        limits = limits or Limits()
        with contextlib.ExitStack() as opened:
            stages = []
            for each, folder in checked(description, folders):
                mailbox = policy(each.mailbox)
                if each.place is Place.WORKER:
                    worker = Worker(folder, variant=each.variant, state=each.state, limits=limits)
                    self.workers[each.name] = opened.enter_context(worker)
                    stage = worker_stage(each.name, worker, mailbox, gap=each.gap)
                else:
                    runtime = self.runtimes[each.name] = Runtime.open(folder, variant=each.variant, state=each.state)
                    opened.callback(runtime.close)
                    stage = runtime_stage(each.name, runtime, mailbox, gap=each.gap)
                stages.append(connected(each, stage))
            for worker in self.workers.values():
                worker.await_ready(limits.start_s)
            self.pipeline = opened.enter_context(Pipeline(stages))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """End the pipeline, the workers and the runtimes."""
        self._opened.close()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()
