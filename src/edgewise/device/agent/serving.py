"""The model that answers. Another one is put in its place between two inferences."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS
from edgewise.device.agent.capturing import Capturing
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.measured import Measured
from edgewise.device.agent.shadow import Shadow
from edgewise.device.agent.tensors import Specs
from edgewise.device.audit.log import AuditLog
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.runtime import NO_TIME, Answer, Runtime
from edgewise.device.slots import Slot
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime

_OF_MODEL = frozenset({OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED})


class Declared(NamedTuple):
    """What the owner wants beside the model: fallbacks, the governor, and the log of every fallback."""

    fallback: FallbackOptions = FallbackOptions()
    governor: bool = False
    audit: AuditLog | None = None


class Model:
    """A slot's bundle, opened."""

    def __init__(self, slot: Slot, runtime: Runtime | AdaptiveRuntime) -> None:
        """Take both; see `open`."""
        self.slot = slot
        self.runtime = runtime
        session = runtime.session
        self.specs: Specs = {name: (session.inputs[name].dtype, session.inputs[name].shape) for name in session.given}

    @classmethod
    def open(cls, slot: Slot, folder: Path, declared: Declared) -> Model:
        """Open the files of a slot, which were checked. Raises BundleError, ModelError, ExecutionError, ConfigError."""
        if not declared.governor:
            return cls(slot, Runtime.open(folder, fallback=declared.fallback, audit=declared.audit))
        from edgewise.device.governor.adaptive import AdaptiveRuntime  # noqa: PLC0415 - it loads all that meters need

        return cls(slot, AdaptiveRuntime.open(folder, fallback=declared.fallback, audit=declared.audit))

    def measured(self) -> dict[str, Measured]:
        """Return what each variant did since the last call."""
        runtime = self.runtime
        if not isinstance(runtime, Runtime):
            return {name: Measured(*report) for name, report in runtime.report().items()}
        latency = runtime.latency.drain()
        outcomes, counters = runtime.tally.drain()
        return {runtime.variant: Measured({LATENCY_MS: latency}, counters, outcomes, {})}


class Serving:
    """One model at a time, used by one thread at a time; the others wait, at most until their deadline."""

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
        return None if self._shadow is None else self._shadow.slot

    def beside(self, model: Model | None, *, share: float) -> None:
        """Score with another model beside what serves, `share` of the time at most; None ends it."""
        before, self._shadow = self._shadow, None
        if before is not None:
            before.close()
        if model is not None:
            self._shadow = Shadow(model.slot, model.runtime, self._counts.count, share=share)

    def infer(self, inputs: Mapping[str, Array], *, until_s: float | None = None) -> Answer:
        """Answer once, with arrays of the caller's own. `until_s` is the deadline, on this object's clock."""
        if not self._lock.acquire(timeout=-1 if until_s is None else max(0.0, until_s - self._clock())):
            return Answer({}, self.refuse(f"{NO_TIME}: others were before it"))
        try:
            if self._closing or self._model is None:
                return Answer({}, self.refuse("the agent stops" if self._closing else "no bundle is installed yet"))
            left_ms = None if until_s is None else (until_s - self._clock()) * 1000
            ready = self._model.runtime.ready  # the governor may go to another one behind this inference
            found = self._model.runtime.infer(inputs, deadline_ms=left_ms)
            if (shadow := self._shadow) is not None and found.outcome.kind is OutcomeKind.LOCAL:
                shadow.offer(inputs, found.outputs)
            if self._capturing is not None and found.outputs:
                self._capturing.offer(inputs, ready, found.outputs if found.outcome.kind in _OF_MODEL else {})
            return Answer({name: array.copy() for name, array in found.outputs.items()}, found.outcome)
        finally:
            self._lock.release()

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

    def _measure(self) -> None:
        if self._model is not None:
            for variant, measured in self._model.measured().items():
                self._counts.measured(measured, variant)
