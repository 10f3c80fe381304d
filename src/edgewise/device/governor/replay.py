"""What a policy would have done with a recorded stream: the governor's own code, and no clock, sensor or model.

A trace is a table of the same stream with each level alone. Its first line gives the period and deadline, and the
frame before which each phase ends:

    # period_ms 19.719, calm 406, hog 1674, calm 2435
    wanted_ms,lowest_ms,load
    8.3,4.9,

A row is a frame: what each level took in milliseconds, nothing where it missed its deadline, and the load that was
sensed, nothing where there was none. Frames are taken to be independent: a miss does not delay the next one.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

from edgewise.device.governor.decide import Cause, Level
from edgewise.device.governor.governor import Governor
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.governor.sensors import Sensed

_HEAD = "# period_ms "


class Frame(NamedTuple):
    """What each level took, None where it missed the deadline, and the load; from the wanted level downwards."""

    taken_ms: tuple[float | None, ...]
    load: float | None


class Phase(NamedTuple):
    """A name for what was imposed, and the frame before which it ended."""

    name: str
    end: int


class Trace(NamedTuple):
    """A recorded stream; the first phase is calm."""

    period_ms: float
    phases: tuple[Phase, ...]
    frames: tuple[Frame, ...]

    def missed(self, level: int) -> list[bool]:
        """Return which frames a level alone missed."""
        return [frame.taken_ms[level] is None for frame in self.frames]


class Switched(NamedTuple):
    """A switch behind a frame."""

    frame: int
    level: int
    cause: Cause
    reason: str


class Replayed(NamedTuple):
    """Of every frame whether it was missed and which level answered; the switches."""

    missed: list[bool]
    levels: list[int]
    switches: list[Switched]


def parse(text: str) -> Trace:
    """Return a trace from its text. Raises ValueError for what is none."""
    head, _, *lines = text.splitlines()
    if not head.startswith(_HEAD):
        raise ValueError(f"a trace begins with {_HEAD!r}, not with {head[:60]!r}")
    period, *phases = head.removeprefix(_HEAD).split(", ")
    frames = []
    for line in lines:
        *taken, load = (float(cell) if cell else None for cell in line.split(","))
        frames.append(Frame(tuple(taken), load))
    named = (each.rsplit(" ", 1) for each in phases)
    return Trace(float(period), tuple(Phase(name, int(end)) for name, end in named), tuple(frames))


def replay(trace: Trace, policy: GovernorPolicy) -> Replayed:
    """Let the governor choose for every frame which of the recordings happens; levels are timed in the first phase."""
    calm = trace.frames[: trace.phases[0].end]
    times = zip(*(frame.taken_ms for frame in calm), strict=True)
    medians = [statistics.median(each for each in column if each is not None) for column in times]
    governor = Governor(policy, [Level(variant=f"level {at}", latency_ms=each) for at, each in enumerate(medians)])
    found = Replayed([], [], [])
    for number, frame in enumerate(trace.frames):
        taken_ms = frame.taken_ms[governor.level]
        found.missed.append(taken_ms is None)
        found.levels.append(governor.level)
        governor.note(1.0 if taken_ms is None else taken_ms / trace.period_ms)
        now_s = (number + 1) * trace.period_ms / 1e3
        if not governor.is_due(now_s):
            continue
        decision = governor.look(now_s, Sensed(load=frame.load))
        if decision.cause is not None:
            found.switches.append(Switched(number, governor.level, decision.cause, decision.reason))
    return found
