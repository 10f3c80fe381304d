"""What an inference returned on a device, and why."""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value


class OutcomeKind(StrEnum):
    """The ladder, best rung first."""

    LOCAL = "local"
    """The variant the governor wants answered in time."""
    LOCAL_DEGRADED = "local_degraded"
    """A cheaper or older variant of this device answered."""
    CACHED = "cached"
    """A stored answer to the same input."""
    CLOUD = "cloud"
    CONSERVATIVE = "conservative"
    """The answer that is safe whatever the input is, as the application declared it."""
    REFUSED = "refused"


class Outcome(Value, kw_only=True):
    """One outcome. `slack_ms` is what was left until the deadline, below 0 where it was missed, None without one.

    `variant` and the `bundle`'s digest say what answered; None where no model of this device did.
    """

    kind: OutcomeKind
    reason: str = ""
    slack_ms: float | None = None
    variant: str | None = None
    bundle: str | None = None
