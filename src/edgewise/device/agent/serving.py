"""The model that answers. Another one is put in its place between two inferences."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import decode_sealed
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.contracts.pipeline import PipelineManifest
from edgewise.contracts.telemetry import LATENCY_MS
from edgewise.device.agent.capturing import Capturing
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.isolating import limits_of, open_governed, open_isolated
from edgewise.device.agent.measured import Measured
from edgewise.device.agent.settings import WorkerOptions
from edgewise.device.agent.shadow import Shadow, scorer_of
from edgewise.device.agent.status import StageStatus, stages_of
from edgewise.device.agent.tensors import Specs
from edgewise.device.audit.log import AuditLog
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.isolated import IsolatedSession
from edgewise.device.pipeline.answering import PipelineRuntime
from edgewise.device.pipeline.opened import sessions_of
from edgewise.device.runtime import NO_TIME, Answer, Runtime
from edgewise.device.session import BoundSession
from edgewise.device.slots import Slot
from edgewise.errors import ConfigError
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime

_OF_MODEL = frozenset({OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED})


class Declared(NamedTuple):
    """What the owner wants beside the model: fallbacks, the governor, and the log of every fallback."""

    fallback: FallbackOptions = FallbackOptions()
    governor: bool = False
    audit: AuditLog | None = None
    worker: WorkerOptions | None = None


class Model:
    """A slot's bundle, opened."""

    def __init__(self, slot: Slot, runtime: Runtime | AdaptiveRuntime | PipelineRuntime) -> None:
        """Take both; see `open`."""
        self.slot = slot
        self.runtime = runtime
        self._restarts = 0
        self.specs: Specs = runtime.specs if isinstance(runtime, PipelineRuntime) else _specs(runtime.session)

    @classmethod
    def open(cls, slot: Slot, folder: Path, declared: Declared) -> Model:
        """Open the files of a slot, which were checked. Raises BundleError, ModelError, ExecutionError, ConfigError."""
        if isinstance(decode_sealed((folder / MANIFEST).read_bytes()), PipelineManifest):
            return cls(slot, _opened_stages(folder, declared))
        if declared.worker is not None:
            isolated = open_governed if declared.governor else open_isolated
            return cls(slot, isolated(folder, declared.worker, fallback=declared.fallback, audit=declared.audit))
        if not declared.governor:
            return cls(slot, Runtime.open(folder, fallback=declared.fallback, audit=declared.audit))
        from edgewise.device.governor.adaptive import AdaptiveRuntime  # noqa: PLC0415 - it loads all that meters need

        return cls(slot, AdaptiveRuntime.open(folder, fallback=declared.fallback, audit=declared.audit))

    def stages(self) -> tuple[StageStatus, ...]:
        """Return what the stages say of themselves; none where it is one model."""
        return stages_of(self.runtime) if isinstance(self.runtime, PipelineRuntime) else ()

    def sessions(self) -> list[BoundSession]:
        """Return those whose executions are in this process, whoever runs them."""
        runtime = self.runtime
        if isinstance(runtime, PipelineRuntime):
            return [session for each in runtime.stages for session in each.sessions()]
        return [each for each in sessions_of(runtime) if not isinstance(each, IsolatedSession)]

    def restarts(self) -> int:
        """Return how often a worker process was started anew since the last call."""
        runtime = self.runtime
        if isinstance(runtime, PipelineRuntime):
            total = sum(each.restarts for each in runtime.stages)
        else:
            total = sum(each.restarts for each in sessions_of(runtime) if isinstance(each, IsolatedSession))
        new, self._restarts = total - self._restarts, total
        return new

    def measured(self) -> dict[str, Measured]:
        """Return what each variant did since the last call."""
        runtime = self.runtime
        if isinstance(runtime, PipelineRuntime):
            histograms, counted, ended = runtime.drain()
            return {runtime.variant: Measured(histograms, counted, ended, {})}
        if not isinstance(runtime, Runtime):
            return {name: Measured(*report) for name, report in runtime.report().items()}
        latency = runtime.latency.drain()
        outcomes, counters = runtime.tally.drain()
        return {runtime.variant: Measured({LATENCY_MS: latency}, counters, outcomes, {})}


def _opened_stages(folder: Path, declared: Declared) -> PipelineRuntime:
    """Open a bundle of several stages. Raises as `Model.open`."""
    if declared.fallback.cloud is not None:
        raise ConfigError(
            "fallback.cloud for a bundle of several stages",
            required="a bundle of one model, or none of it",
            next_step="take it out of agent.toml, or assign this device another product",
        )
    if declared.worker is not None and declared.governor:
        raise ConfigError(
            "both governor and [worker] for a bundle of several stages",
            required="one of them: the worker of a stage holds one variant",
            next_step="take one out of agent.toml",
        )
    return PipelineRuntime.open(
        folder,
        conservative=declared.fallback.conservative,
        cache_bytes=declared.fallback.cache_bytes,
        audit=declared.audit,
        limits=None if declared.worker is None else limits_of(declared.worker),
        isolated=declared.worker is not None,
        governed=declared.governor,
    )


def _specs(session: BoundSession) -> Specs:
    return {name: (session.inputs[name].dtype, session.inputs[name].shape) for name in session.given}


class Serving:
    """One bundle at a time. A model is used by one thread at a time; the others wait, at most until their deadline.

    Stages have mailboxes of their own, so that requests to a pipeline go side by side.
    """

    def __init__(
        self, counts: Counts, clock: Callable[[], float] = time.monotonic, capturing: Capturing | None = None
    ) -> None:
        """Begin without a model. `clock` is monotonic, in seconds."""
        self._counts = counts
        self.audit: AuditLog | None = None
        """Where requests that come to no inference are noted."""
        self._clock = clock
        self._capturing = capturing
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._shadow: Shadow | None = None
        self._scored: Model | None = None
        self._unscored: Slot | None = None
        self._closing = False

    @property
    def model(self) -> Model | None:
        """What answers now; None before the first bundle."""
        return self._model

    def swap(self, model: Model) -> None:
        """Let another model answer from the next inference on."""
        with self._lock:
            self._measure()
            if self._capturing is not None and (report := self._capturing.ended()) is not None:
                self._counts.captured(report)
            before, self._model = self._model, model
            self._counts.running(model.slot.release.digest, model.runtime.variant)
            if self._capturing is not None:
                self._capturing.running(model.specs)
        if before is not None:
            before.runtime.close()

    @property
    def shadow(self) -> Slot | None:
        """What is scored beside the model."""
        return self._unscored if self._shadow is None else self._shadow.slot

    @property
    def scored(self) -> Model | None:
        """What is scored with beside the model, where it can be."""
        return self._scored

    def beside(self, model: Model | None, *, share: float) -> None:
        """Score with another model beside what serves, `share` of the time at most; None ends it."""
        before, self._shadow, self._scored, self._unscored = self._shadow, None, None, None
        if before is not None:
            before.close()
        if model is None:
            return
        scorer = scorer_of(model.runtime, None if self._model is None else self._model.runtime)
        if scorer is None:  # it is there, and nothing is reported of it
            model.runtime.close()
            self._unscored = model.slot
        else:
            self._shadow, self._scored = Shadow(model.slot, scorer, self._counts.count, share=share), model

    def infer(self, inputs: Mapping[str, Array], *, until_s: float | None = None, begins: bool = False) -> Answer:
        """Answer once, with arrays of the caller's own. `until_s` is the deadline, on this object's clock.

        `begins` sets the states of stages to zeros first; a bundle of one model keeps none.
        """
        if not self._lock.acquire(timeout=-1 if until_s is None else max(0.0, until_s - self._clock())):
            return Answer({}, self.refuse(f"{NO_TIME}: others were before it"))
        try:
            if self._closing or self._model is None:
                return Answer({}, self.refuse("the agent stops" if self._closing else "no bundle is installed yet"))
            stages = self._model.runtime
            if not isinstance(stages, PipelineRuntime):
                return self._infer(stages, inputs, until_s)
            stages.enter()  # while it is the one that answers: whoever closes it waits
        finally:
            self._lock.release()
        try:
            found = stages.infer(inputs, deadline_ms=self._left_ms(until_s), begins=begins)
        finally:
            stages.leave()
        if (shadow := self._shadow) is not None and found.outcome.kind is OutcomeKind.LOCAL:
            shadow.offer(inputs, found.outputs)
        if self._capturing is not None and found.outputs:
            with self._lock:
                self._capturing.offer(inputs, None, {})
        return found

    def _infer(self, runtime: Runtime | AdaptiveRuntime, inputs: Mapping[str, Array], until_s: float | None) -> Answer:
        ready = runtime.ready  # the governor may go to another one behind this inference
        found = runtime.infer(inputs, deadline_ms=self._left_ms(until_s))
        if (shadow := self._shadow) is not None and found.outcome.kind is OutcomeKind.LOCAL:
            shadow.offer(inputs, found.outputs)
        if self._capturing is not None and found.outputs:
            self._capturing.offer(inputs, ready, found.outputs if found.outcome.kind in _OF_MODEL else {})
        return Answer({name: array.copy() for name, array in found.outputs.items()}, found.outcome)

    def _left_ms(self, until_s: float | None) -> float | None:
        return None if until_s is None else (until_s - self._clock()) * 1000

    def refuse(self, reason: str) -> Outcome:
        """Count a request that comes to no inference, and return its outcome."""
        self._counts.turned_away()
        outcome = Outcome(kind=OutcomeKind.REFUSED, reason=reason)
        if self.audit is not None:
            self.audit.note(outcome)
        return outcome

    def measure(self) -> None:
        """Hand what was measured since the last call over to the counts."""
        with self._lock:
            self._measure()

    def gather(self) -> None:
        """Hand over what was measured and captured, at the end of a window of telemetry."""
        self.measure()
        if self._capturing is not None and (report := self._capturing.report()) is not None:
            self._counts.captured(report)

    def close(self, wait_s: float) -> None:
        """Begin no inference any more, and wait for the one that runs, `wait_s` at most."""
        self._closing = True
        if self._lock.acquire(timeout=wait_s):
            self._lock.release()
        if self._model is not None:
            self._model.runtime.close()  # a worker is a process

    def _measure(self) -> None:
        if self._model is not None:
            for variant, measured in self._model.measured().items():
                self._counts.measured(measured, variant)
            for _ in range(self._model.restarts()):
                self._counts.crashed()
