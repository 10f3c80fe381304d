"""Opens a bundle's folder or a model file, and answers inferences with an outcome each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.meter import LatencyMeter
from edgewise.device.session import BoundSession, Shapes
from edgewise.errors import ExecutionError
from edgewise.runtimes.base import Array

Nanoseconds = Callable[[], int]
"""A monotonic clock."""


class Answer(NamedTuple):
    """Outputs by name, overwritten by the next inference, and what they are; no outputs where it was refused."""

    outputs: Mapping[str, Array]
    outcome: Outcome


class Runtime:
    """One variant, ready to answer; one thread at a time may use it."""

    def __init__(
        self, session: BoundSession, *, variant: str, bundle: str | None, clock: Nanoseconds = time.perf_counter_ns
    ) -> None:
        """Answer with a session; see `open`."""
        self.session = session
        self.variant = variant
        self.bundle = bundle
        self.latency = LatencyMeter()
        """Of the inferences that were answered, deadline or not."""
        self._clock = clock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        variant: str | None = None,
        threads: int = 1,
        shapes: Shapes | None = None,
        state: Sequence[tuple[str, str]] = (),
    ) -> Self:
        """Open an extracted bundle's folder, or a model file.

        A bundle's files must have been verified before. Its variant (the chosen one by default) says the threads,
        and is run on all golden inputs: ExecutionError where an output is beyond its tolerance. `threads` and
        `shapes` are for model files. Raises BundleError, ModelError and ExecutionError.
        """
        if not path.is_dir():
            session = BoundSession(path, threads=threads, shapes=shapes or {}, state=state)
            session.run_from({})  # the first run is slow
            return cls(session, variant=variant or path.stem, bundle=None)
        # A process that runs a model file alone never loads the code of signatures behind the bundle's reader.
        from edgewise.device.bundled import open_variant  # noqa: PLC0415

        session, name, digest = open_variant(path, variant, state=state)
        return cls(session, variant=name, bundle=digest)

    def infer(self, inputs: Mapping[str, Array], *, deadline_ms: float | None = None) -> Answer:
        """Answer once. `deadline_ms` counts from this call; a late answer is given, with a slack below 0.

        Without time left, or where the execution fails, the outcome is refused and says why.
        """
        begin = self._clock()
        if deadline_ms is not None and not deadline_ms > 0:
            return self._refused("no time left", deadline_ms)
        try:
            outputs = self.session.run(inputs)
        except ExecutionError as error:
            taken_ms = (self._clock() - begin) / 1e6
            return self._refused(error.found, None if deadline_ms is None else deadline_ms - taken_ms)
        taken_ms = (self._clock() - begin) / 1e6
        self.latency.record(taken_ms)
        slack_ms = None if deadline_ms is None else deadline_ms - taken_ms
        reason = "" if slack_ms is None or slack_ms >= 0 else "late"
        return Answer(
            outputs,
            Outcome(kind=OutcomeKind.LOCAL, reason=reason, slack_ms=slack_ms, variant=self.variant, bundle=self.bundle),
        )

    def _refused(self, reason: str, slack_ms: float | None) -> Answer:
        if slack_ms is not None and math.isnan(slack_ms):
            slack_ms = None
        return Answer({}, Outcome(kind=OutcomeKind.REFUSED, reason=reason, slack_ms=slack_ms))
