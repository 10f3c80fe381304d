from __future__ import annotations

import msgspec
import pytest

from edgewise.contracts.rollout import Command, Event, EventKind, Rollout, Stage, State, in_cohort, position
from edgewise.errors import RolloutError
from edgewise.fleet.evidence import DeviceEvidence, Table, Window, table
from edgewise.fleet.rollouts import command, create, deltas_made, due, step
from tests.unit.fleet.devices import POLICY, STAGE, fleet, rollout

replace = msgspec.structs.replace
FIRST = Stage(name="canary", label="canary", bake_s=1200, looks=4, minimum_devices=3)
SECOND = Stage(name="half", share=0.5, approval=True, bake_s=1200, looks=4, minimum_devices=3)
NOBODY = table(POLICY, [], now_s=0.0)


def at(now_s: float, devices: list[DeviceEvidence]) -> Table:
    return table(POLICY, [replace(each, since_s=0.0, last_report_s=now_s) for each in devices], now_s=now_s)


def started(*stages: Stage) -> Rollout:
    return command(rollout(*stages), Command.START, now_s=0.0, actor="ann")[0]


def test_a_harmless_release_goes_through_every_stage() -> None:
    found = started(FIRST, SECOND)
    history: list[Event] = []
    for now_s in (300.0, 600.0, 900.0, 1200.0):
        found, events = step(found, at(now_s, fleet()), now_s=now_s)
        history += events
    assert [event.kind for event in history][-3:] == [
        EventKind.LOOKED,
        EventKind.PROMOTED,
        EventKind.AWAITING_APPROVAL,
    ]
    assert (found.stage, found.promoted, found.stage_start_s) == (1, 1, None)
    assert step(found, at(9000.0, fleet()), now_s=9000.0) == (found, ())
    found, _ = command(found, Command.APPROVE, now_s=9000.0, actor="bob")
    found, events = step(found, at(10200.0, fleet()), now_s=10200.0)
    assert found.state is State.COMPLETED
    assert events[-1].kind is EventKind.COMPLETED


def test_a_slow_release_is_rolled_back_at_a_look_with_its_decision() -> None:
    found, events = step(started(STAGE), at(600.0, fleet(slower=1.4)), now_s=600.0)
    assert found.state is State.ROLLED_BACK
    assert [event.kind for event in events] == [EventKind.LOOKED, EventKind.ROLLED_BACK]
    assert events[0].decision is not None
    assert events[0].decision.fraction == 0.5
    assert events[1].reason == events[0].decision.reason


def test_no_stage_starts_before_the_deltas_are_there() -> None:
    waiting, events = command(rollout(STAGE), Command.START, now_s=0.0, actor="ann", awaits_deltas=True)
    assert [event.kind for event in events] == [EventKind.STARTED, EventKind.AWAITING_DELTAS]
    assert (waiting.state, waiting.stage_start_s) == (State.STAGED, None)
    assert step(waiting, at(9000.0, fleet()), now_s=9000.0) == (waiting, ())
    with pytest.raises(RolloutError, match="deltas"):
        command(waiting, Command.APPROVE, now_s=10.0, actor="ann")
    entered, events = deltas_made(waiting, now_s=9000.0)
    assert [event.kind for event in events] == [EventKind.STAGE_STARTED]
    assert entered.stage_start_s == 9000.0  # its bake time begins when devices can take it
    assert deltas_made(entered, now_s=9001.0) == (entered, ())
    paused, _ = command(waiting, Command.PAUSE, now_s=10.0, actor="ann")
    assert deltas_made(paused, now_s=20.0) == (paused, ())
    resumed, _ = command(paused, Command.RESUME, now_s=30.0, actor="ann")
    assert deltas_made(resumed, now_s=40.0)[0].stage_start_s == 40.0


def test_overdue_looks_are_taken_once() -> None:
    found = started(STAGE)
    assert due(found, 299.0) is None
    assert due(found, 950.0) == 0.75
    found, _ = step(found, NOBODY, now_s=950.0)
    assert found.fractions == (0.75,)
    assert due(found, 1100.0) is None
    assert due(found, 5000.0) == 1.0


def test_a_stage_left_undecided_waits_for_a_person() -> None:
    found, _ = step(started(STAGE), NOBODY, now_s=1200.0)
    assert found.state is State.STAGED
    assert step(found, at(90_000.0, fleet()), now_s=90_000.0) == (found, ())
    found, events = command(found, Command.EXTEND, now_s=90_000.0, actor="ann", reason="devices were off")
    assert events[0].kind is EventKind.EXTENDED
    found, _ = step(found, at(91_200.0, fleet()), now_s=91_200.0)
    assert found.state is State.COMPLETED


def test_a_pause_stops_the_clock_of_the_stage_but_not_a_hard_stop() -> None:
    paused, _ = command(started(STAGE), Command.PAUSE, now_s=100.0, actor="ann")
    assert step(paused, at(5000.0, fleet()), now_s=5000.0) == (paused, ())
    resumed, _ = command(paused, Command.RESUME, now_s=5100.0, actor="ann")
    assert due(resumed, 5000.0 + 299.0) is None
    assert due(resumed, 5000.0 + 301.0) == 0.25
    loop = [replace(each, current=Window(crash_loop=True)) for each in fleet()[:2]]
    stopped, events = step(paused, at(5000.0, loop), now_s=5000.0)
    assert stopped.state is State.ROLLED_BACK
    assert [event.kind for event in events] == [EventKind.HARD_STOP, EventKind.ROLLED_BACK]


@pytest.mark.parametrize(
    ("commands", "asked"),
    [
        ([], Command.APPROVE),
        ([], Command.PAUSE),
        ([], Command.ROLL_BACK),
        ([Command.START], Command.START),
        ([Command.START], Command.APPROVE),
        ([Command.START], Command.RESUME),
        ([Command.START], Command.EXTEND),
        ([Command.START, Command.PAUSE], Command.PAUSE),
        ([Command.START, Command.ABORT], Command.ROLL_BACK),
        ([Command.START, Command.ROLL_BACK], Command.START),
    ],
    ids=str,
)
def test_a_command_out_of_place_is_refused(commands: list[Command], asked: Command) -> None:
    found = rollout(STAGE)
    for each in commands:
        found, _ = command(found, each, now_s=0.0, actor="ann")
    with pytest.raises(RolloutError, match="cannot"):
        command(found, asked, now_s=0.0, actor="ann")


def test_only_a_fresh_draft_is_created() -> None:
    with pytest.raises(RolloutError, match="draft"):
        create(started(STAGE), now_s=0.0, actor="ann")


def test_positions_are_even_and_change_with_the_salt() -> None:
    one = [position(f"d{number}", "salt of a release") for number in range(2000)]
    other = [position(f"d{number}", "salt of another") for number in range(2000)]
    assert all(0 <= place < 1 for place in one)
    assert sum(place < 0.1 for place in one) == pytest.approx(200, abs=45)
    both = sum(a < 0.1 and b < 0.1 for a, b in zip(one, other, strict=True))
    assert both < 50  # 20 by chance


def test_a_position_is_what_the_reference_says() -> None:
    # printf 'salt of sixteen letters\0gateway-17' | sha256sum
    assert position("gateway-17", "salt of sixteen letters") == (0x9D024B16F3D393BE >> 11) / 2**53


def test_a_cohort_grows_by_stages_and_labels() -> None:
    names = [f"d{number}" for number in range(400)]
    found = started(FIRST, replace(SECOND, share=0.3, approval=False))
    assert [name for name in names if in_cohort(found, name, frozenset())] == []
    assert in_cohort(found, "d1", frozenset({"canary"}))
    second = replace(found, stage=1, promoted=1)
    served = {name for name in names if in_cohort(second, name, frozenset())}
    assert served == {name for name in names if position(name, found.salt) < 0.3}
    waiting = replace(second, stage_start_s=None)
    assert not any(in_cohort(waiting, name, frozenset()) for name in names)
    assert in_cohort(waiting, "d1", frozenset({"canary"}))


def test_the_last_stage_holds_controls_back_until_completion() -> None:
    found = started(replace(STAGE, share=1.0))
    names = [f"d{number}" for number in range(1000)]
    held = sum(not in_cohort(found, name, frozenset()) for name in names)
    assert held == pytest.approx(50, abs=25)
    assert all(in_cohort(replace(found, state=State.COMPLETED, promoted=1), name, frozenset()) for name in names)
    assert not any(in_cohort(replace(found, state=State.ROLLED_BACK), name, frozenset()) for name in names)


@pytest.mark.parametrize(
    "fields",
    [
        {"share": None},
        {"share": 0.5, "label": "x"},
        {"share": 0.0},
        {"share": 1.1},
        {"bake_s": 0},
        {"decide_s": 10},
        {"looks": 0},
        {"minimum_devices": 0},
        {"share": None, "label": "a=b=c d"},
    ],
    ids=str,
)
def test_a_stage_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"stage|share|bake|looks|label"):
        replace(STAGE, **fields)


def test_shares_must_grow() -> None:
    with pytest.raises(ValueError, match="grow"):
        rollout(STAGE, replace(STAGE, name="again"))
