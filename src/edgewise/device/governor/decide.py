"""Which variant should answer: a pure function of the levels, what was decided before, and a reading of the device.

Lateness is carried over from one variant to another by their times as measured on this device: under one pressure, a
variant that takes twice the time needs twice the share of a deadline. So a lower variant that is at ease says by itself
whether the one above it would be, and the governor does not find out by missing deadlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.governor.policy import GovernorPolicy

HOUR_S = 3600.0
ENOUGH = 16
"""Items that must have been answered by a variant before it says anything about a higher one."""
_REGRET = 3.0
"""A climb was too early where it is taken back within so many times the calm that came before it."""


class Cause(StrEnum):
    """What a switch is made for; `governor.switch.CAUSE` counts it."""

    LATE = "late"
    HOT = "hot"
    BATTERY = "battery"
    MEMORY = "memory"
    CALM = "calm"


class Level(Value, kw_only=True):
    """A variant that joined. Its time (median) and energy were measured on this device."""

    variant: str
    latency_ms: float
    energy_mj: float | None = None
    memory_mib: float | None = None


class Reading(Value, kw_only=True):
    """The device at `at_s`, seconds of a clock that never jumps. What cannot be read is None.

    `lateness` is the share of the deadline that all but one of the last items stayed within; None without deadlines.
    `items` counts those since the last switch. `battery` is the share that is left, None on mains. `load` is the share
    of the time that this process wanted a processor and had to wait for one.
    """

    at_s: float
    lateness: float | None = None
    items: int = 0
    temperature_c: float | None = None
    battery: float | None = None
    free_memory_mib: float | None = None
    load: float | None = None


class State(Value, kw_only=True):
    """What the governor remembers. `level` counts from the wanted variant, 0, downwards."""

    level: int = 0
    cause: Cause | None = None
    """Of the last switch downwards; None while the wanted variant answers."""
    calm_needed_s: float | None = None
    calm_since_s: float | None = None
    climbed_s: float | None = None
    switches: tuple[float, ...] = ()
    """When, within the last hour."""


class Decision(NamedTuple):
    """The state from now on, and why: for people. `cause` is None where nothing was switched."""

    state: State
    cause: Cause | None
    reason: str


class _Wish(NamedTuple):
    level: int
    cause: Cause
    reason: str


def decide(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> Decision:
    """Return what to do. `levels` goes from the wanted variant to the fastest, and has at least one.

    At most one switch per dwell time; one level at a time upwards, and only after a calm.
    """
    wishes = (
        _by_lateness(policy, levels, state, reading),
        _by_heat(policy, levels, state, reading),
        _by_battery(policy, levels, state, reading),
        _by_memory(policy, levels, state, reading),
    )
    wish = max(wishes, key=lambda each: each.level)
    recent = tuple(each for each in state.switches if reading.at_s - each < HOUR_S)
    state = _replaced(state, switches=recent)
    if wish.level > state.level:
        return _down(policy, levels, _replaced(state, calm_since_s=None), reading, wish)
    if wish.level == state.level:
        return Decision(_replaced(state, calm_since_s=None), None, wish.reason if state.level else "")
    if reading.load is not None and reading.load >= policy.busy:
        return Decision(
            _replaced(state, calm_since_s=None),
            None,
            f"{reading.load:.0%} of the time is spent waiting for a processor",
        )
    return _up(policy, levels, state, reading)


def _down(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading, wish: _Wish) -> Decision:
    held = _held(policy, state, reading, spare=0)
    if held:
        return Decision(state, None, f"{wish.reason}; {held}")
    calm_s = state.calm_needed_s or policy.calm_s
    regrets = state.climbed_s is not None and reading.at_s - state.climbed_s < _REGRET * max(calm_s, policy.dwell_s)
    after = State(
        level=wish.level,
        cause=wish.cause,
        calm_needed_s=min(2 * calm_s, policy.most_calm_s) if regrets else policy.calm_s,
        switches=(*state.switches, reading.at_s),
    )
    return Decision(after, wish.cause, f"{wish.reason}: {levels[wish.level].variant}")


def _up(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> Decision:
    since = reading.at_s if state.calm_since_s is None else state.calm_since_s
    state = _replaced(state, calm_since_s=since)
    needed_s = policy.calm_s if state.calm_needed_s is None else state.calm_needed_s
    if reading.at_s - since < needed_s:
        return Decision(state, None, f"no pressure for {reading.at_s - since:.1f} s of {needed_s:g} s")
    held = _held(policy, state, reading, spare=1)
    if held:
        return Decision(state, None, held)
    level = state.level - 1
    after = State(
        level=level,
        cause=state.cause if level else None,
        calm_needed_s=needed_s,
        climbed_s=reading.at_s,
        switches=(*state.switches, reading.at_s),
    )
    return Decision(after, Cause.CALM, f"no pressure for {needed_s:g} s: {levels[level].variant}")


def _held(policy: GovernorPolicy, state: State, reading: Reading, *, spare: int) -> str:
    """Return why no switch may be made now; `spare` switches are kept back, so that a climb can be taken back."""
    if state.switches and reading.at_s - state.switches[-1] < policy.dwell_s:
        return f"the last switch is {reading.at_s - state.switches[-1]:.1f} s ago, required {policy.dwell_s:g} s"
    if len(state.switches) + spare >= policy.most_switches_per_hour:
        return f"{len(state.switches)} switches within an hour, at most {policy.most_switches_per_hour}"
    return ""


def _by_lateness(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> _Wish:
    share, here = reading.lateness, state.level
    if share is None:
        return _Wish(0 if not reading.items else here, Cause.LATE, "")
    words = f"items need {share:.0%} of their deadline"
    last = len(levels) - 1
    own_ms = levels[here].latency_ms
    if share > policy.late:
        fits = (at for at in range(here + 1, last + 1) if share * levels[at].latency_ms / own_ms <= policy.late)
        return _Wish(min(next(fits, last), last), Cause.LATE, words)
    if reading.items < ENOUGH:
        return _Wish(here, Cause.LATE, f"{reading.items} items since the last switch, {ENOUGH} tell")
    for at in range(here):
        if share * levels[at].latency_ms / own_ms <= policy.comfortable:
            return _Wish(at, Cause.LATE, "")
    above = share * levels[here - 1].latency_ms / own_ms if here else share
    return _Wish(here, Cause.LATE, f"{levels[max(here - 1, 0)].variant} would need {above:.0%} of the deadline")


def _by_heat(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> _Wish:
    found = reading.temperature_c
    if found is None or policy.hot_c is None or policy.cool_c is None:
        return _Wish(0, Cause.HOT, "")
    words = f"{found:.0f} degrees Celsius, hot from {policy.hot_c:g} on, cool from {policy.cool_c:g} down"
    if found >= policy.hot_c:
        return _Wish(min(state.level + 1, len(levels) - 1), Cause.HOT, words)
    return _Wish(state.level if found > policy.cool_c else 0, Cause.HOT, words)


def _by_battery(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> _Wish:
    if reading.battery is None:
        return _Wish(0, Cause.BATTERY, "")
    words = f"{reading.battery:.0%} of the battery are left"
    if reading.battery <= policy.battery_low:
        return _Wish(_least([each.energy_mj for each in levels]), Cause.BATTERY, words)
    return _Wish(state.level if reading.battery < policy.battery_fine else 0, Cause.BATTERY, words)


def _by_memory(policy: GovernorPolicy, levels: Sequence[Level], state: State, reading: Reading) -> _Wish:
    free = reading.free_memory_mib
    if free is None:
        return _Wish(0, Cause.MEMORY, "")
    words = f"{free:.0f} MiB of memory are free"
    if free <= policy.memory_low_mib:
        return _Wish(_least([each.memory_mib for each in levels]), Cause.MEMORY, words)
    return _Wish(state.level if free < policy.memory_fine_mib else 0, Cause.MEMORY, words)


def _least(figures: Sequence[float | None]) -> int:
    """Return the level with the least figure; the fastest where one is not known."""
    known = [each for each in figures if each is not None]
    return figures.index(min(known)) if len(known) == len(figures) else len(figures) - 1


def _replaced(state: State, **changes: object) -> State:
    return msgspec.structs.replace(state, **changes)
