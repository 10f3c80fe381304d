"""A circuit breaker: after failures in a row a server is left alone for a while, then tried once.

Nygard, Release It!, section 5.2. Pure: the state is a value and the clock is given, monotonic, in seconds.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edgewise.contracts.base import Value


class BreakerState(StrEnum):
    """Of a breaker at a time."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """None does."""
    HALF_OPEN = "half-open"
    """One does, and decides."""


class BreakerRules(Value, kw_only=True):
    """`failures` in a row open it for `rest_s`, each opening in a row twice as long, at most `most_rest_s`."""

    failures: int = 5
    rest_s: float = 10.0
    most_rest_s: float = 600.0

    def __post_init__(self) -> None:
        """Raise ValueError for rules that would never open, or never close."""
        if not (self.failures >= 1 and 0 < self.rest_s <= self.most_rest_s < float("inf")):
            raise ValueError("failures must be 1 or more, and 0 < rest_s <= most_rest_s")


class Breaker(Value, kw_only=True):
    """What is remembered of the calls so far."""

    failures: int = 0
    """In a row."""
    openings: int = 0
    """In a row."""
    until_s: float | None = None
    """It is open until then; None where it is closed."""
    trying: bool = False
    """The one call of a half-open breaker is under way."""

    def state(self, now_s: float) -> BreakerState:
        """Return the state at a time."""
        if self.until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self.until_s else BreakerState.HALF_OPEN

    def allows(self, now_s: float) -> bool:
        """Return whether a call may begin."""
        state = self.state(now_s)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and not self.trying)


def begun(breaker: Breaker, now_s: float) -> Breaker:
    """Return the breaker after a call that it allows has begun."""
    half_open = breaker.state(now_s) is BreakerState.HALF_OPEN
    return msgspec.structs.replace(breaker, trying=True) if half_open else breaker


def withdrawn(breaker: Breaker) -> Breaker:
    """Return the breaker after a call that had begun was not made after all."""
    return msgspec.structs.replace(breaker, trying=False)


def succeeded(_: Breaker) -> Breaker:
    """Return the breaker after a call that was answered well: as new."""
    return Breaker()


def failed(breaker: Breaker, rules: BreakerRules, now_s: float, *, retry_after_s: float | None = None) -> Breaker:
    """Return the breaker after a call that failed; a server that asks to be left alone opens it at once.

    What it asks for counts up to `most_rest_s`, and is never shorter than the rest that is due anyway.
    """
    failures = breaker.failures + 1
    if breaker.until_s is None and failures < rules.failures and retry_after_s is None:
        return msgspec.structs.replace(breaker, failures=failures)
    rest_s = min(rules.rest_s * 2.0 ** min(breaker.openings, 32), rules.most_rest_s)
    rest_s = max(rest_s, min(retry_after_s or 0.0, rules.most_rest_s))
    return Breaker(failures=failures, openings=breaker.openings + 1, until_s=now_s + rest_s)
