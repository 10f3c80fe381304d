"""Which rung is next. Pure: what is known comes in, and a reason comes out."""

from __future__ import annotations

from typing import NamedTuple

NO_CONFIDENCE = "confidence unknown"
UNSURE = "unsure"


class Escalation(NamedTuple):
    """What a call to the cloud needs, all of it. `left_ms` is None without a deadline."""

    is_sure: bool | None
    """Whether the prediction set of the variant that answered holds one class alone; None where it has no threshold."""
    consent: bool
    unsendable: str
    """Why the input cannot be put into the protocol; empty where it can."""
    busy: bool
    """An earlier call is still under way."""
    breaker_allows: bool
    has_budget: bool
    left_ms: float | None
    """Until the deadline, less what is kept for returning the local answer."""
    least_ms: float


def why_not(asked: Escalation) -> str:
    """Return why a local answer is not escalated, empty where it is.

    Consent is asked before everything that depends on the network, so that the reason never hides that it is missing.

    >>> why_not(Escalation(False, True, "", False, True, True, left_ms=3.0, least_ms=50.0))
    'no time left'
    """
    if asked.is_sure is None:
        return NO_CONFIDENCE
    hindrances = (
        (asked.is_sure, "sure"),
        (not asked.consent, "no consent"),
        (bool(asked.unsendable), asked.unsendable),
        (asked.busy, "an earlier call is under way"),
        (not asked.breaker_allows, "the breaker is open"),
        (not asked.has_budget, "no call is left in the budget"),
        (asked.left_ms is not None and not asked.left_ms >= asked.least_ms, "no time left"),
    )
    return next((reason for applies, reason in hindrances if applies), "")
