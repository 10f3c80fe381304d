"""Opens the stages of an extracted bundle, and joins them as its manifest says."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import decode_sealed
from edgewise.bundle.stages import added, feeds_of
from edgewise.contracts.histogram import Histogram
from edgewise.contracts.manifest import Manifest
from edgewise.contracts.pipeline import ModelStage, PipelineManifest, Place, mailbox_of
from edgewise.device.meter import LatencyMeter
from edgewise.device.pipeline.models import Arrays, runtime_stage, worker_stage
from edgewise.device.pipeline.pipeline import Pipeline, Stage, Ticket
from edgewise.device.pipeline.policy import block, latest, reject
from edgewise.device.runtime import Runtime
from edgewise.device.session import BoundSession
from edgewise.device.worker import Limits, Worker
from edgewise.errors import BundleError
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime, Report

_MAILBOXES = {"latest": latest, "block": block, "reject": reject}


class Passing(NamedTuple):
    """What goes through the stages: values by name, and whether the item begins a new stream."""

    values: Mapping[str, Array]
    begins: bool = False


class OpenStage:
    """One stage, opened, and what it did since then."""

    def __init__(self, described: ModelStage, kind: str, opened: Runtime | AdaptiveRuntime | Worker) -> None:
        """Take its parts; see `BundlePipeline`."""
        self.described = described
        self.kind = kind
        """Of its bundle's task."""
        self.opened = opened
        self._variant = ""
        self._latency, self._lock = LatencyMeter(), threading.Lock()
        self._counting = threading.Lock()
        self.ran = 0
        self.skipped = 0
        """Items that went on without it."""

    def drain(self) -> Histogram:
        """Return the milliseconds of executions that gave outputs since the last call."""
        with self._lock:
            return self._latency.drain()

    @property
    def variant(self) -> str:
        """What runs now."""
        return self._variant if isinstance(self.opened, Worker) else self.opened.variant

    def await_ready(self, timeout_s: float) -> None:
        """Wait for its process, where it has one. Raises ExecutionError and WorkerError."""
        if isinstance(self.opened, Worker):
            self._variant = self.opened.await_ready(timeout_s)

    @property
    def place(self) -> Place:
        """Where it runs."""
        return Place.WORKER if isinstance(self.opened, Worker) else Place.HERE

    def sessions(self) -> list[BoundSession]:
        """Return those that execute in this process."""
        return [] if isinstance(self.opened, Worker) else sessions_of(self.opened)

    @property
    def restarts(self) -> int:
        """How often its process was started anew; 0 where it runs in this one."""
        return self.opened.counts().starts - 1 if isinstance(self.opened, Worker) else 0

    def joined(self, bare: Stage) -> Stage:
        """Return a stage that takes its inputs out of the item's values, and adds its outputs to them."""

        def run(passing: Passing, ticket: Ticket) -> Passing:
            if passing.begins and self.described.state:
                self._reset()
            feeds = feeds_of(self.described, passing.values)
            if feeds is None:
                self.skipped += 1
                return passing
            begin = time.perf_counter_ns()
            outputs = self._run(bare, feeds, ticket)
            with self._lock:
                self._latency.record((time.perf_counter_ns() - begin) / 1e6)
            self.ran += 1
            return passing._replace(values=added(self.described, passing.values, outputs))

        return bare._replace(run=run)

    def _run(self, bare: Stage, feeds: Arrays, ticket: Ticket) -> Arrays:
        """Execute; where a governor may go to another variant behind it, nobody reads its counts meanwhile."""
        outputs: Arrays
        if isinstance(self.opened, Runtime | Worker):
            outputs = bare.run(feeds, ticket)
            return outputs
        with self._counting:
            outputs = bare.run(feeds, ticket)
        return outputs

    def governed(self) -> list[Report]:
        """Return what each variant did since the last call, where a governor chooses it; else nothing."""
        if isinstance(self.opened, Runtime | Worker):
            return []
        with self._counting:
            return list(self.opened.report().values())

    def _reset(self) -> None:
        if isinstance(self.opened, Worker):
            self.opened.reset()
        else:
            self.opened.session.reset()


class BundlePipeline:
    """The pipeline of a bundle with all that it has opened; close it, or use it in a `with` block.

    An item is a `Passing` of what the manifest's `inputs` name; it comes out with the outputs of every stage that ran.
    """

    def __init__(
        self, folder: Path, *, limits: Limits | None = None, isolated: bool = False, governed: bool = False
    ) -> None:
        """Open every stage of an extracted bundle, whose files were verified; golden inputs are run.

        `limits` are of each worker; `isolated` gives every stage a worker of its own. `governed` lets each stage of
        this process go to another variant of its bundle while the device is pressed. Raises BundleError, ModelError,
        ExecutionError and WorkerError; then nothing stays open.
        """
        data = _read(folder / MANIFEST)
        sealed = decode_sealed(data)
        if not isinstance(sealed, PipelineManifest):
            raise BundleError(f"{folder} holds a bundle of one model", required="one of several stages")
        self.manifest = sealed
        self.digest = hashlib.sha256(data).hexdigest()
        limits = limits or Limits()
        self.stages: list[OpenStage] = []
        with contextlib.ExitStack() as opened:
            stages = []
            for each in sealed.pipeline.stages:
                kind = check_stage(each, folder / each.name).postprocessing.kind
                full, size = mailbox_of(each.mailbox)
                mailbox = _MAILBOXES[full](size)
                if each.place is Place.WORKER or isolated:
                    worker = Worker(folder / each.name, variant=each.variant, state=each.state, limits=limits)
                    opened.enter_context(worker)
                    found = OpenStage(each, kind, worker)
                    bare = worker_stage(each.name, worker, mailbox, gap=each.gap)
                else:
                    runtime = _opened(each, folder / each.name, governed=governed)
                    opened.callback(runtime.close)
                    found = OpenStage(each, kind, runtime)
                    bare = runtime_stage(each.name, runtime, mailbox, gap=each.gap)
                self.stages.append(found)
                stages.append(found.joined(bare))
            for found in self.stages:
                found.await_ready(limits.start_s)
            self.pipeline = opened.enter_context(Pipeline(stages))
            self.close: Callable[[], None] = opened.pop_all().close
            """Ends the pipeline, the workers and the runtimes."""

    def submit(self, values: Mapping[str, Array], *, deadline_ms: float | None = None, begins: bool = False) -> Ticket:
        """Bring an item in, with the manifest's deadline where none is given; `begins` sets all states to zeros."""
        due_ms = self.manifest.pipeline.deadline_ms if deadline_ms is None else deadline_ms
        return self.pipeline.submit(Passing(values, begins), deadline_ms=due_ms)

    def outputs_of(self, ticket: Ticket) -> dict[str, Array]:
        """Return what an item that is out is given; a value that a gate kept out is missing."""
        values = ticket.value.values
        return {name: values[name] for name in self.manifest.pipeline.outputs if name in values}

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()


def sessions_of(runtime: Runtime | AdaptiveRuntime) -> list[BoundSession]:
    """Return the sessions that a runtime executes with."""
    return [runtime.session] if isinstance(runtime, Runtime) else [each.session for each in runtime.members]


def _opened(stage: ModelStage, folder: Path, *, governed: bool) -> Runtime | AdaptiveRuntime:
    if not governed:
        return Runtime.open(folder, variant=stage.variant, state=stage.state)
    from edgewise.device.governor.adaptive import AdaptiveRuntime  # noqa: PLC0415 - it loads all that meters need

    return AdaptiveRuntime.open(folder, wanted=stage.variant, state=stage.state)


def check_stage(stage: ModelStage, folder: Path) -> Manifest:
    """Return the manifest of the bundle in a stage's folder, whose files were verified.

    Raises BundleError where it is not the one that the stage names.
    """
    data = _read(folder / MANIFEST)
    found, manifest = hashlib.sha256(data).hexdigest(), decode_sealed(data)
    if found != stage.bundle or isinstance(manifest, PipelineManifest):
        raise BundleError(
            f"stage {stage.name!r}: {folder} holds the bundle {found}",
            required=stage.bundle,
            next_step="extract the bundle again",
        )
    return manifest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}", required="the folder of an extracted bundle") from error
