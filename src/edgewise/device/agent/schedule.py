"""What the agent does when: state in, action out. No clock, no randomness, no I/O.

Times are monotonic seconds, `uniform` is random in [0, 1).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.waiting import wait_s

HEALTHY_AFTER_S = 20.0
"""A bundle that has answered for so long since it was started is no crash loop."""
LABELS_S = 1800.0
"""An operator's change of labels is known here after one to two of this."""
MOST_INTERVAL_S, MOST_JITTER = 24 * 3600.0, 10.0


class Action(StrEnum):
    """What is due."""

    POLL = "poll"
    LABELS = "labels"
    HEALTHY = "healthy"
    WAIT = "wait"


class Pace(Value, kw_only=True):
    """How often the server wants to be asked."""

    interval_s: float
    jitter: float


class Schedule(Value, kw_only=True):
    """When things are due; None where nothing is."""

    poll_s: float
    labels_s: float
    healthy_s: float | None = None
    failures: int = 0
    """Polls in a row that failed."""


def begun(pace: Pace, *, now: float, uniform: float, installed: bool) -> Schedule:
    """Return the schedule of a start.

    The first poll of a device that has a bundle is spread over a whole interval: a power cut that ends everywhere at
    once must not bring the whole fleet to the server. One without a bundle asks at once.
    """
    first = uniform * pace.interval_s if installed else 0.0
    return Schedule(
        poll_s=now + first,
        labels_s=now + first,
        healthy_s=now + HEALTHY_AFTER_S if installed else None,
    )


def due(schedule: Schedule, now: float) -> Action:
    """Return what to do now; what is due longest comes first."""
    at, action = _first(schedule)
    return action if at <= now else Action.WAIT


def until(schedule: Schedule, now: float) -> float:
    """Return how many seconds to wait for the next thing that is due; 0 where it is now."""
    return max(0.0, _first(schedule)[0] - now)


def _first(schedule: Schedule) -> tuple[float, Action]:
    found = [(schedule.labels_s, Action.LABELS), (schedule.poll_s, Action.POLL)]
    if schedule.healthy_s is not None:
        found.append((schedule.healthy_s, Action.HEALTHY))
    return min(found, key=lambda each: each[0])


def polled(
    schedule: Schedule, pace: Pace, *, now: float, uniform: float, failed: bool, retry_after_s: float | None = None
) -> Schedule:
    """Return the schedule after a poll. A refusal is no failure: the server was reached."""
    failures = schedule.failures + 1 if failed else 0
    wait = wait_s(failures, retry_after_s, interval_s=pace.interval_s, jitter=pace.jitter, uniform=uniform)
    return msgspec.structs.replace(schedule, poll_s=now + wait, failures=failures)


def swapped(schedule: Schedule, *, now: float) -> Schedule:
    """Return the schedule after another bundle began to answer."""
    return msgspec.structs.replace(schedule, healthy_s=now + HEALTHY_AFTER_S)


def healthy(schedule: Schedule) -> Schedule:
    """Return the schedule after a bundle was noted as healthy."""
    return msgspec.structs.replace(schedule, healthy_s=None)


def labelled(schedule: Schedule, *, now: float, uniform: float) -> Schedule:
    """Return the schedule after the device asked for its labels."""
    return msgspec.structs.replace(schedule, labels_s=now + LABELS_S * (1 + uniform))


def paced(pace: Pace, interval: str | None, jitter: str | None) -> Pace:
    """Return the pace that a server's headers ask for; what is no sensible number changes nothing.

    >>> paced(Pace(interval_s=300, jitter=1), "60", "nan").interval_s
    60.0
    """
    return msgspec.structs.replace(
        pace,
        interval_s=_number(interval, 1.0, MOST_INTERVAL_S, pace.interval_s),
        jitter=_number(jitter, 0.0, MOST_JITTER, pace.jitter),
    )


def _number(text: str | None, least: float, most: float, otherwise: float) -> float:
    try:
        found = float(text or "")
    except ValueError:
        return otherwise
    return found if least <= found <= most else otherwise
