"""The model that answers. Another one is put in its place between two inferences."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.agent.tally import Tally
from edgewise.device.agent.tensors import Specs
from edgewise.device.runtime import Answer, Runtime
from edgewise.device.slots import Slot
from edgewise.runtimes.base import Array


class Model:
    """A slot's bundle, opened: its chosen variant answers."""

    def __init__(self, slot: Slot, runtime: Runtime) -> None:
        """Take both; see `open`."""
        self.slot = slot
        self.runtime = runtime
        session = runtime.session
        self.specs: Specs = {name: (session.inputs[name].dtype, session.inputs[name].shape) for name in session.given}

    @classmethod
    def open(cls, slot: Slot, folder: Path) -> Model:
        """Open the files of a slot, which were checked. Raises BundleError, ModelError, ExecutionError."""
        return cls(slot, Runtime.open(folder))


class Serving:
    """One model at a time, used by one thread at a time; the others wait, at most until their deadline."""

    def __init__(self, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a model. `clock` is monotonic, in seconds."""
        self._tally = tally
        self._clock = clock
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._closing = False

    @property
    def model(self) -> Model | None:
        """What answers now; None before the first bundle."""
        return self._model

    def swap(self, model: Model) -> None:
        """Let another model answer from the next inference on."""
        with self._lock:
            self._measure()
            self._model = model
            self._tally.begin(model.slot.release.digest, model.runtime.variant)

    def infer(self, inputs: Mapping[str, Array], *, until_s: float | None = None) -> Answer:
        """Answer once, with arrays of the caller's own. `until_s` is the deadline, on this object's clock."""
        answer = self._answer(inputs, until_s)
        self._tally.answered(answer.outcome)
        return answer

    def refuse(self, reason: str) -> Outcome:
        """Count a request that came to no inference, and return its outcome."""
        outcome = Outcome(kind=OutcomeKind.REFUSED, reason=reason)
        self._tally.answered(outcome)
        return outcome

    def measure(self) -> None:
        """Hand the latencies since the last call over to the tally."""
        with self._lock:
            self._measure()

    def close(self, wait_s: float) -> None:
        """Begin no inference any more, and wait for the one that runs, `wait_s` at most."""
        self._closing = True
        if self._lock.acquire(timeout=wait_s):
            self._lock.release()

    def _measure(self) -> None:
        if self._model is not None:
            self._tally.measured(self._model.runtime.latency.drain())

    def _answer(self, inputs: Mapping[str, Array], until_s: float | None) -> Answer:
        if not self._lock.acquire(timeout=-1 if until_s is None else max(0.0, until_s - self._clock())):
            return _refused("no time left: others were before it")
        try:
            if self._closing:
                return _refused("the agent stops")
            if self._model is None:
                return _refused("no bundle is installed yet")
            left_ms = None if until_s is None else (until_s - self._clock()) * 1000
            found = self._model.runtime.infer(inputs, deadline_ms=left_ms)
            return Answer({name: array.copy() for name, array in found.outputs.items()}, found.outcome)
        finally:
            self._lock.release()


def _refused(reason: str) -> Answer:
    return Answer({}, Outcome(kind=OutcomeKind.REFUSED, reason=reason))
