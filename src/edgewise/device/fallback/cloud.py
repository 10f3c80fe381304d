"""The cloud rung: asks a server in a thread of its own, so that nobody waits for it longer than there is time.

At most one call is under way. A call ends by itself when the time it was given is over; one that hangs below that (in
name resolution, say) keeps only later calls from being made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgewise.contracts.telemetry import CLOUD_CALLS, CLOUD_FAILURES
from edgewise.device.fallback import breaker, bucket
from edgewise.device.fallback.breaker import Breaker, BreakerState
from edgewise.device.fallback.exchange import Exchange
from edgewise.device.fallback.ladder import UNSURE, Escalation, why_not
from edgewise.device.fallback.options import CloudOptions
from edgewise.device.fallback.question import Local, Question, question_of
from edgewise.device.tally import Tally
from edgewise.errors import (
    ConfigError,
    HttpStatusError,
    MalformedReplyError,
    SlowRetrievalError,
    TransferError,
    TruncatedError,
    UnreachableError,
)
from edgewise.runtimes.base import Array

TOO_SLOW, UNREACHABLE, MALFORMED, WITHDRAWN = "too slow", "unreachable", "a malformed answer", "consent was withdrawn"
_REPEATED = frozenset({500, 502, 503, 504})
"""A server that says so may answer at once the next time."""

Seconds = Callable[[], float]


class Replied(NamedTuple):
    """What came of a question: outputs, or the reason why there are none."""

    outputs: Mapping[str, Array] | None
    reason: str


class _WithdrawnError(Exception):
    """Consent ended before anything was sent."""


class _Call:
    """A question under way, until `due_s`."""

    def __init__(self, question: Question, due_s: float) -> None:
        self.question = question
        self.due_s = due_s
        self.done = threading.Event()
        self.replied = Replied(None, TOO_SLOW)


class Cloud:
    """Asks one server, within consent, breaker and budget."""

    def __init__(self, options: CloudOptions, tally: Tally, *, clock: Seconds = time.monotonic) -> None:
        """Take the options. Raises ConfigError and UnsafeAddressError where they cannot be used."""
        self.options = options
        self.exchange = Exchange(options)
        self.consent = options.consent
        """Whether inputs may leave the device; looked at again just before anything is sent."""
        self._tally = tally
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker()
        self._bucket = bucket.full(options.budget, clock())
        self._under_way: _Call | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._under_way is not None

    @property
    def breaker_state(self) -> BreakerState:
        """That of the circuit breaker, now."""
        return self._breaker.state(self._clock())

    def escalate(self, local: Local, *, slack_ms: float | None) -> Replied:
        """Return the server's outputs, or why there are none: then the local answer stands; no reason where it is sure.

        Waits no longer than until what is kept of the deadline for returning the local answer.
        """
        believer, now_s = local.ready.believer, self._clock()
        confidence = None if believer is None else believer.confidence(local.outputs, coverage=self.options.coverage)
        is_sure = None if confidence is None else confidence.is_sure
        if is_sure:
            return Replied(None, "")
        left_ms = None if slack_ms is None else slack_ms - self.options.reserve_ms
        hindrance = why_not(
            Escalation(
                is_sure=is_sure,
                consent=self.consent,
                unsendable=self.exchange.unsendable(local),
                busy=self.is_busy,
                breaker_allows=self._breaker.allows(now_s),
                has_budget=bucket.has_one(self._bucket, self.options.budget, now_s),
                left_ms=left_ms,
                least_ms=self.options.least_ms,
            )
        )
        if hindrance:
            return Replied(None, hindrance if is_sure is None else _unsure(hindrance))
        timeout_s = self.options.timeout_s
        replied = self._ask(question_of(local), seconds=timeout_s if left_ms is None else min(timeout_s, left_ms / 1e3))
        return Replied(replied.outputs, UNSURE if replied.outputs is not None else _unsure(replied.reason))

    def _ask(self, question: Question, *, seconds: float) -> Replied:
        """Ask, and wait at most so long."""
        call = _Call(question, self._clock() + seconds)
        with self._lock:
            self._under_way = call
        threading.Thread(target=self._answer, args=(call,), name="edgewise-cloud", daemon=True).start()
        call.done.wait(seconds)
        return call.replied if call.done.is_set() else Replied(None, TOO_SLOW)

    def _answer(self, call: _Call) -> None:
        try:
            call.replied = self._tried(call)
        except Exception:  # a fault of ours: it is shown as any of a thread, and must not hold the breaker half-open
            self._failed(TransferError(UNREACHABLE))
            raise
        finally:
            with self._lock:
                self._under_way = None
            call.done.set()

    def _tried(self, call: _Call) -> Replied:
        """Send the question, again where that may help and everything still allows it."""
        try:
            body = self.exchange.body(call.question)
        except ConfigError as error:
            return Replied(None, error.found)
        reason = TOO_SLOW
        for _ in range(self.options.attempts):
            left_s = call.due_s - self._clock()
            if left_s <= 0 or not self._begin():
                break
            try:
                outputs = self.exchange.send(body, call.question, seconds=left_s, before=self._check_consent)
            except _WithdrawnError:
                with self._lock:
                    self._breaker = breaker.withdrawn(self._breaker)
                return Replied(None, WITHDRAWN)
            except TransferError as error:
                self._failed(error)
                reason = _reason(error)
                if not _may_help(error):
                    break
                continue
            return self._succeeded(call, outputs)
        return Replied(None, reason)

    def _check_consent(self) -> None:
        if not self.consent:
            raise _WithdrawnError(WITHDRAWN)
        self._tally.event(CLOUD_CALLS)

    def _begin(self) -> bool:
        """Take a token and a place at the breaker; False where there is none."""
        with self._lock:
            now_s = self._clock()
            left = bucket.taken(self._bucket, self.options.budget, now_s)
            if left is None or not self._breaker.allows(now_s):
                return False
            self._bucket, self._breaker = left, breaker.begun(self._breaker, now_s)
            return True

    def _succeeded(self, call: _Call, outputs: Mapping[str, Array]) -> Replied:
        if self._clock() > call.due_s:
            self._failed(SlowRetrievalError(TOO_SLOW))
            return Replied(None, TOO_SLOW)
        with self._lock:
            self._breaker = breaker.succeeded(self._breaker)
        return Replied(outputs, "")

    def _failed(self, error: TransferError) -> None:
        self._tally.event(CLOUD_FAILURES)
        retry_after_s = error.retry_after_s if isinstance(error, HttpStatusError) else None
        with self._lock:
            self._breaker = breaker.failed(
                self._breaker, self.options.breaker, self._clock(), retry_after_s=retry_after_s
            )


def _unsure(reason: str) -> str:
    return f"{UNSURE}; cloud: {reason}"


def _may_help(error: TransferError) -> bool:
    """Return whether a repeat at once may help: not where the server was slow, asked to wait, or spoke wrongly."""
    if isinstance(error, HttpStatusError):
        return error.status in _REPEATED and error.retry_after_s is None
    return isinstance(error, (UnreachableError, TruncatedError))


def _reason(error: TransferError) -> str:
    """Return words for an outcome: never the server's own, which may say anything."""
    if isinstance(error, HttpStatusError):
        return f"status {error.status}"
    kinds = ((SlowRetrievalError, TOO_SLOW), (MalformedReplyError, MALFORMED))
    return next((words for kind, words in kinds if isinstance(error, kind)), UNREACHABLE)
