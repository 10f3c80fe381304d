"""Opens a bundle's folder or a model file, and answers inferences with an outcome each."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.fallback.cache import ExactCache, key_of
from edgewise.device.fallback.conservative import declared
from edgewise.device.fallback.options import CloudOptions, FallbackOptions
from edgewise.device.fallback.question import Local, Original
from edgewise.device.isolated import IsolatedSession
from edgewise.device.meter import LatencyMeter
from edgewise.device.ready import Ready, of_session
from edgewise.device.session import BoundSession, Shapes
from edgewise.device.tally import Tally
from edgewise.device.watchdog import Watchdog
from edgewise.errors import ConfigError, ExecutionError
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.audit.log import AuditLog
    from edgewise.device.fallback.cloud import Cloud

Nanoseconds = Callable[[], int]
"""A monotonic clock."""

LATE, CUT, NO_TIME = "late", "cut at the deadline", "no time left"


class Answer(NamedTuple):
    """Outputs by name, overwritten by the next inference, and what they are; no outputs where it was refused."""

    outputs: Mapping[str, Array]
    outcome: Outcome


class Runtime:
    """Answers with one variant at a time; one thread at a time may use it."""

    def __init__(
        self,
        ready: Ready,
        *,
        fallback: FallbackOptions | None = None,
        audit: AuditLog | None = None,
        clock: Nanoseconds = time.perf_counter_ns,
    ) -> None:
        """Answer with a variant that is loaded; see `open`. Raises ConfigError where a fallback does not fit it."""
        self.latency = LatencyMeter()
        """Of the inferences that the local model answered in time."""
        self.tally = Tally()
        """Outcomes and counters for telemetry."""
        self._clock = clock
        self._options = fallback or FallbackOptions()
        self._audit = audit
        self._cache = ExactCache(self._options.cache_bytes, self.tally) if self._options.cache_bytes else None
        self._watchdog = Watchdog()
        self._cloud = None if self._options.cloud is None else _cloud(self._options.cloud, self.tally)
        self.close = weakref.finalize(self, self._watchdog.close)
        """Ends the threads; also done when the runtime is garbage."""
        self.use(ready)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        variant: str | None = None,
        threads: int = 1,
        shapes: Shapes | None = None,
        state: Sequence[tuple[str, str]] = (),
        fallback: FallbackOptions | None = None,
        audit: AuditLog | None = None,
    ) -> Self:
        """Open an extracted bundle's folder, or a model file.

        A bundle's files must have been verified before. Its variant (the chosen one by default) says the threads,
        and is run on all golden inputs: ExecutionError where an output is beyond its tolerance. `threads` and
        `shapes` are for model files. `audit` stays the caller's to close. Raises BundleError, ModelError,
        ExecutionError and ConfigError.
        """
        if not path.is_dir():
            session = BoundSession(path, threads=threads, shapes=shapes or {}, state=state)
            session.run_from({})  # the first run is slow
            return cls(of_session(session, variant=variant or path.stem), fallback=fallback, audit=audit)
        # A process that runs a model file alone never loads the code of signatures behind the bundle's reader.
        from edgewise.device.bundled import open_variant  # noqa: PLC0415

        return cls(open_variant(path, variant, state=state), fallback=fallback, audit=audit)

    def use(self, ready: Ready, *, degraded: str = "") -> None:
        """Answer with another variant from now on, with its own temperature and thresholds.

        `degraded` is the reason why it is not the one that is wanted, and makes its answers `local_degraded`.
        Raises ConfigError where the declared fallback does not fit it; then nothing has changed.
        """
        if self._cache is not None and ready.session.is_stateful:
            raise ConfigError(
                f"{ready.variant} keeps a state, so that equal inputs have different answers",
                required="`cache_bytes` of 0 for a stream",
            )
        conservative = self._options.conservative
        answer = None if conservative is None else declared(conservative, ready)
        self._ready, self._degraded, self._conservative = ready, degraded, answer
        self._local = OutcomeKind.LOCAL_DEGRADED if degraded else OutcomeKind.LOCAL

    @property
    def ready(self) -> Ready:
        """What answers now."""
        return self._ready

    @property
    def session(self) -> BoundSession:
        """That of what answers now."""
        return self._ready.session

    @property
    def variant(self) -> str:
        """The name of what answers now."""
        return self._ready.variant

    @property
    def bundle(self) -> str | None:
        """The digest of its bundle's manifest; None for a model file."""
        return self._ready.bundle

    @property
    def cloud(self) -> Cloud | None:
        """The cloud rung, where one was declared: its `consent` can be given and withdrawn from any thread."""
        return self._cloud

    def infer(
        self,
        inputs: Mapping[str, Array],
        *,
        deadline_ms: float | None = None,
        original: Original | None = None,
    ) -> Answer:
        """Answer once. `deadline_ms` counts from this call, and is hard: a later result of the model is not given.

        The execution is cut shortly before; then, without time left, or where it fails, the outcome is the
        conservative answer that was declared, else refused; its reason says why. `original` is the text or the PNG
        or JPEG file that the inputs were made of: for a cloud server, where the local model is unsure.
        """
        begin = self._clock()
        if deadline_ms is not None and not deadline_ms > 0:
            return self._fallen(NO_TIME, deadline_ms)
        key = None if self._cache is None else key_of(self._ready.identity, inputs)
        if self._cache is not None and key is not None:
            kept = self._cache.find(key)
            if kept is not None:
                return self._in_time(kept, OutcomeKind.CACHED, self._degraded, begin=begin, deadline_ms=deadline_ms)
        try:
            outputs = self._run(inputs, deadline_ms)
        except ExecutionError as error:
            return self._fallen(error.found, self._slack_ms(begin, deadline_ms))
        taken_ms = (self._clock() - begin) / 1e6
        slack_ms = None if deadline_ms is None else deadline_ms - taken_ms
        if slack_ms is not None and slack_ms < 0:
            return self._fallen(LATE, slack_ms)
        self.latency.record(taken_ms)
        if self._cloud is not None:
            replied = self._cloud.escalate(Local(inputs, original, self._ready, outputs), slack_ms=slack_ms)
            if replied.reason:
                found, kind = replied.outputs, OutcomeKind.CLOUD
                reason = replied.reason
                if found is None:
                    found, kind = outputs, self._local
                    reason = f"{self._degraded}; {reason}" if self._degraded else reason
                return self._in_time(found, kind, reason, begin=begin, deadline_ms=deadline_ms)
        if self._cache is not None and key is not None:
            self._cache.keep(key, outputs)
        return self._answer(outputs, self._local, self._degraded, slack_ms)

    def _in_time(
        self, outputs: Mapping[str, Array], kind: OutcomeKind, reason: str, *, begin: int, deadline_ms: float | None
    ) -> Answer:
        """Answer, unless it is too late now."""
        slack_ms = self._slack_ms(begin, deadline_ms)
        if slack_ms is not None and slack_ms < 0:
            return self._fallen(LATE, slack_ms)
        return self._answer(outputs, kind, reason, slack_ms)

    def _slack_ms(self, begin: int, deadline_ms: float | None) -> float | None:
        return None if deadline_ms is None else deadline_ms - (self._clock() - begin) / 1e6

    def _run(self, inputs: Mapping[str, Array], deadline_ms: float | None) -> Mapping[str, Array]:
        session = self._ready.session
        if deadline_ms is None:
            return session.run(inputs)
        within_s = (deadline_ms - self._options.reserved_ms(deadline_ms)) / 1e3
        if isinstance(session, IsolatedSession):
            return session.run_within(inputs, within_s)
        self._watchdog.watch(session, within_s)
        try:
            return session.run(inputs)
        except ExecutionError as error:
            if self._watchdog.has_cut:
                raise ExecutionError(CUT) from error
            raise
        finally:
            self._watchdog.release()

    def _fallen(self, reason: str, slack_ms: float | None) -> Answer:
        """Answer without a result of a model."""
        if slack_ms is not None and math.isnan(slack_ms):
            slack_ms = None
        if self._conservative is not None:
            return self._answer(self._conservative, OutcomeKind.CONSERVATIVE, reason, slack_ms)
        return self._answer({}, OutcomeKind.REFUSED, reason, slack_ms)

    def _answer(self, outputs: Mapping[str, Array], kind: OutcomeKind, reason: str, slack_ms: float | None) -> Answer:
        self.tally.outcome(kind)
        is_local = kind in {OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED, OutcomeKind.CACHED}
        outcome = Outcome(
            kind=kind,
            reason=reason,
            slack_ms=slack_ms,
            variant=self._ready.variant if is_local else None,
            bundle=self._ready.bundle if is_local else None,
        )
        if reason and self._audit is not None:
            self._audit.note(outcome)
        return Answer(outputs, outcome)


def _cloud(options: CloudOptions, tally: Tally) -> Cloud:
    # The code of HTTP and TLS is loaded only where a server was declared.
    from edgewise.device.fallback.cloud import Cloud  # noqa: PLC0415

    return Cloud(options, tally)
