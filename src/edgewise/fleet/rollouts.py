"""The rollout as a state machine: a pure step in time, and what a person may command.

Clock and evidence come in as arguments. Whoever calls keeps the result and the events in one transaction: a step that
is lost is made again, and one that is made twice does nothing the second time.
"""

from __future__ import annotations

import math
from typing import NoReturn

import msgspec

from edgewise.contracts.rollout import (
    Answer,
    Command,
    Decision,
    Event,
    EventKind,
    GatePolicy,
    RateGate,
    Release,
    Rollout,
    Stage,
    State,
)
from edgewise.contracts.telemetry import REQUESTS
from edgewise.errors import RolloutError
from edgewise.fleet.evidence import CRASHES, Table
from edgewise.fleet.gates import decide, hard_stop

Moved = tuple[Rollout, tuple[Event, ...]]

_ALLOWED = {
    Command.START: {State.DRAFT},
    Command.APPROVE: {State.STAGED},
    Command.PAUSE: {State.STAGED},
    Command.RESUME: {State.PAUSED},
    Command.EXTEND: {State.STAGED},
    Command.ABORT: {State.DRAFT, State.STAGED, State.PAUSED},
    Command.ROLL_BACK: {State.STAGED, State.PAUSED},
}


def step(rollout: Rollout, found: Table, *, now_s: float) -> Moved:
    """Return the rollout at `now_s`, given what devices have reported, and what happened to it.

    At most one look is taken: of looks that are overdue, the latest. A hard stop does not wait for one, nor for a
    rollout that is paused, since its devices run the release all the same.
    """
    if rollout.state not in {State.STAGED, State.PAUSED}:
        return rollout, ()
    stop = hard_stop(rollout.policy, found)
    if stop:
        return _end(rollout, State.ROLLED_BACK, now_s, reason=stop, first=EventKind.HARD_STOP)
    fraction = due(rollout, now_s)
    if fraction is None:
        return rollout, ()
    fractions = (*rollout.fractions, fraction)
    decision = decide(rollout.policy, rollout.current, found, fractions)
    looked = msgspec.structs.replace(rollout, fractions=fractions, last=decision)
    event = _event(looked, EventKind.LOOKED, now_s, reason=decision.reason, decision=decision)
    if decision.answer is Answer.HOLD:
        return looked, (event,)
    if decision.answer is Answer.PROMOTE:
        moved, events = _promote(looked, now_s)
    else:
        moved, events = _end(looked, State.ROLLED_BACK, now_s, reason=decision.reason)
    return moved, (event, *events)


def due(rollout: Rollout, now_s: float) -> float | None:
    """Return the look that is due, as a share of the stage's horizon; None where none is."""
    if rollout.state is not State.STAGED or rollout.stage_start_s is None:
        return None
    stage = rollout.current
    passed = max(now_s - rollout.stage_start_s, 0.0) / stage.horizon_s
    looks = min(math.floor(passed * stage.looks), stage.looks)
    fraction = looks / stage.looks
    return fraction if fraction > (rollout.fractions[-1] if rollout.fractions else 0.0) else None


def command(
    rollout: Rollout, asked: Command, *, now_s: float, actor: str, reason: str = "", awaits_deltas: bool = False
) -> Moved:
    """Return the rollout after a person's command. Raises RolloutError where its state does not allow it.

    `awaits_deltas`: a rollout that is started enters no stage before `deltas_made`.
    """
    if rollout.state not in _ALLOWED[asked]:
        _refuse(rollout, asked, f"it is {rollout.state.value}", " or ".join(sorted(_ALLOWED[asked])))
    if asked is Command.START:
        rollout = msgspec.structs.replace(rollout, awaits_deltas=awaits_deltas)
    return _COMMANDS[asked](rollout, now_s, actor, reason)


def deltas_made(rollout: Rollout, *, now_s: float) -> Moved:
    """Return the rollout in its first stage, now that devices can fetch what differs. Others stay as they are."""
    if not rollout.awaits_deltas or rollout.state is not State.STAGED:
        return rollout, ()
    return _enter(msgspec.structs.replace(rollout, awaits_deltas=False), now_s)


def create(rollout: Rollout, *, now_s: float, actor: str) -> Moved:
    """Return a new rollout and its first event. Raises RolloutError unless it is a fresh draft."""
    if rollout.state is not State.DRAFT or rollout.promoted or rollout.fractions or rollout.start_s is not None:
        raise RolloutError(
            f"rollout {rollout.id} is {rollout.state.value}",
            required="a draft that has not been started",
            next_step="leave state, stage and times out of a new rollout",
        )
    return rollout, (_event(rollout, EventKind.CREATED, now_s, actor=actor),)


def first(release: Release, *, name: str, salt: str, now_s: float, actor: str, reason: str = "") -> Moved:
    """Return a product's first release as a rollout that is over: every device takes it, and no gate was asked."""
    begun = Rollout(
        id=name,
        salt=salt,
        from_release=release,
        to_release=release,
        stages=(Stage(name="first", share=1.0, bake_s=1),),
        policy=GatePolicy(rates=(RateGate(events=CRASHES, trials=REQUESTS, margin=1.0),), report_s=1),
        state=State.COMPLETED,
        start_s=now_s,
    )
    kinds = (EventKind.CREATED, EventKind.STARTED, EventKind.COMPLETED)
    return begun, tuple(_event(begun, kind, now_s, actor=actor, reason=reason) for kind in kinds)


def _promote(rollout: Rollout, now_s: float) -> Moved:
    passed = _event(rollout, EventKind.PROMOTED, now_s)
    promoted = msgspec.structs.replace(rollout, promoted=rollout.promoted + 1)
    if promoted.promoted == len(promoted.stages):
        ended, events = _end(promoted, State.COMPLETED, now_s)
        return ended, (passed, *events)
    following = msgspec.structs.replace(promoted, stage=promoted.stage + 1, stage_start_s=None, fractions=())
    entered, events = _enter(following, now_s)
    return entered, (passed, *events)


def _enter(rollout: Rollout, now_s: float) -> Moved:
    if rollout.awaits_deltas:
        return rollout, (_event(rollout, EventKind.AWAITING_DELTAS, now_s),)
    if rollout.current.approval:
        return rollout, (_event(rollout, EventKind.AWAITING_APPROVAL, now_s),)
    return _start_stage(rollout, now_s)


def _start_stage(rollout: Rollout, now_s: float) -> Moved:
    started = msgspec.structs.replace(rollout, stage_start_s=now_s)
    return started, (_event(started, EventKind.STAGE_STARTED, now_s),)


def _begin(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    begun = msgspec.structs.replace(rollout, state=State.STAGED, start_s=now_s)
    entered, events = _enter(begun, now_s)
    return entered, (_event(begun, EventKind.STARTED, now_s, actor=actor, reason=reason), *events)


def _approve(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    if rollout.stage_start_s is not None:
        found = f"stage {rollout.current.name} has started"
        _refuse(rollout, Command.APPROVE, found, "a stage that awaits approval")
    if rollout.awaits_deltas:
        _refuse(rollout, Command.APPROVE, "its deltas are still being made", "a stage that awaits approval")
    begun, events = _start_stage(rollout, now_s)
    return begun, (_event(rollout, EventKind.APPROVED, now_s, actor=actor, reason=reason), *events)


def _pause(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    paused = msgspec.structs.replace(rollout, state=State.PAUSED, paused_at_s=now_s)
    return paused, (_event(paused, EventKind.PAUSED, now_s, actor=actor, reason=reason),)


def _resume(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    stood = 0.0 if rollout.paused_at_s is None else max(now_s - rollout.paused_at_s, 0.0)
    start = None if rollout.stage_start_s is None else rollout.stage_start_s + stood
    resumed = msgspec.structs.replace(rollout, state=State.STAGED, paused_at_s=None, stage_start_s=start)
    return resumed, (_event(resumed, EventKind.RESUMED, now_s, actor=actor, reason=reason),)


def _extend(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    if not rollout.fractions or rollout.fractions[-1] < 1:
        found = "its last look is still to come"
        _refuse(rollout, Command.EXTEND, found, "a stage that its last look left undecided")
    again = msgspec.structs.replace(rollout, stage_start_s=now_s, fractions=())
    return again, (_event(again, EventKind.EXTENDED, now_s, actor=actor, reason=reason),)


def _abort(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    return _end(rollout, State.ABORTED, now_s, actor=actor, reason=reason)


def _roll_back(rollout: Rollout, now_s: float, actor: str, reason: str) -> Moved:
    return _end(rollout, State.ROLLED_BACK, now_s, actor=actor, reason=reason)


def _end(
    rollout: Rollout, state: State, now_s: float, *, actor: str = "", reason: str = "", first: EventKind | None = None
) -> Moved:
    ended = msgspec.structs.replace(rollout, state=state, paused_at_s=None)
    events = (_event(ended, EventKind(state.value), now_s, actor=actor, reason=reason),)
    return ended, (() if first is None else (_event(ended, first, now_s, reason=reason),)) + events


def _event(
    rollout: Rollout,
    kind: EventKind,
    now_s: float,
    *,
    actor: str = "",
    reason: str = "",
    decision: Decision | None = None,
) -> Event:
    return Event(
        kind=kind,
        rollout=rollout.id,
        at_s=now_s,
        stage=rollout.current.name,
        actor=actor,
        reason=reason,
        decision=decision,
    )


def _refuse(rollout: Rollout, asked: Command, found: str, required: str) -> NoReturn:
    raise RolloutError(
        f"rollout {rollout.id} cannot {asked.value.replace('_', ' ')}: {found}",
        required=required,
        next_step=f"look at the rollout's state ({rollout.state.value}) and its last event",
    )


_COMMANDS = {
    Command.START: _begin,
    Command.APPROVE: _approve,
    Command.PAUSE: _pause,
    Command.RESUME: _resume,
    Command.EXTEND: _extend,
    Command.ABORT: _abort,
    Command.ROLL_BACK: _roll_back,
}
