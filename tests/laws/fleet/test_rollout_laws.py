from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgewise.contracts.rollout import (
    Answer,
    Command,
    Event,
    EventKind,
    Rollout,
    Stage,
    State,
    decode_rollout,
    encode_rollout,
    in_cohort,
)
from edgewise.errors import RolloutError
from edgewise.fleet.evidence import DeviceEvidence, Table, table
from edgewise.fleet.rollouts import command, create, step
from tests.unit.fleet.devices import POLICY, fleet, rollout

replace = msgspec.structs.replace
PLANS = {
    "harmless": fleet(6, 20),
    "slow": fleet(6, 20, slower=1.4),
    "nobody": [],
    "without controls": fleet(6, 0),
}
SILENCES = {"none": 0, "one": 1, "all": 6}
# What ends a rollout is asked seldom, so that most go somewhere.
ASKED = [*Command, *[Command.APPROVE, Command.RESUME, Command.EXTEND] * 4]


def seen(devices: list[DeviceEvidence], silent: int, now_s: float, *, loops: int = 0) -> Table:
    """Return the devices as they are at `now_s`: the first canaries silent, the first others in a crash loop."""
    found = []
    for place, each in enumerate(devices):
        mute = each.canary and place < silent
        current = (
            each.current if each.current is None else replace(each.current, crash_loop=each.canary and place < loops)
        )
        found.append(
            replace(
                each,
                since_s=now_s - 2 * POLICY.report_s,
                last_report_s=None if mute else now_s,
                current=None if mute else current,
            )
        )
    return table(POLICY, found, now_s=now_s)


class Rollouts(RuleBasedStateMachine):
    """Any order of commands, steps and evidence; the invariants are what a fleet's owner relies on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.rollout: Rollout = rollout()
        self.events: list[Event] = []
        self.before: Rollout = self.rollout
        self.missing = False

    @initialize(
        approvals=st.lists(st.booleans(), min_size=1, max_size=3),
        bake=st.integers(10, 100),
        more=st.integers(0, 100),
        looks=st.integers(1, 4),
        start=st.sampled_from([True, True, True, False]),
    )
    def draft(self, approvals: list[bool], bake: int, more: int, looks: int, *, start: bool) -> None:
        stages = [
            Stage(
                name=f"s{place}",
                share=(place + 1) / len(approvals),
                approval=approval,
                bake_s=bake,
                decide_s=bake + more,
                looks=looks,
                minimum_devices=4,
            )
            for place, approval in enumerate(approvals)
        ]
        # Lenient, so that only the bake time keeps an early look from promoting.
        policy = replace(POLICY, promote_alpha=0.4)
        self.rollout, events = create(rollout(*stages, policy=policy), now_s=self.now, actor="ann")
        self.events.extend(events)
        if start:
            self.command(asked=Command.START)

    @rule(asked=st.sampled_from(ASKED))
    def command(self, asked: Command) -> None:
        self.before = self.rollout
        self.missing = True
        try:
            self.rollout, events = command(self.rollout, asked, now_s=self.now, actor="ann")
        except RolloutError:
            assert self.rollout is self.before
            return
        assert not self.before.state.terminal
        assert events
        self.events.extend(events)

    @rule(
        plan=st.sampled_from(["harmless", "harmless", *sorted(PLANS)]),
        silence=st.sampled_from(sorted(SILENCES)),
        loops=st.sampled_from([0] * 12 + [2]),
        later=st.floats(-10, 30) | st.floats(-10, 150),
    )
    def step(self, plan: str, silence: str, loops: int, later: float) -> None:
        self.now += later
        found = seen(PLANS[plan], SILENCES[silence], self.now, loops=loops)
        self.missing = plan in {"nobody", "without controls"} or silence != "none"
        self.before = self.rollout
        self.rollout, events = step(self.rollout, found, now_s=self.now)
        self.events.extend(events)
        if self.before.state.terminal or self.before.state is State.DRAFT:
            assert self.rollout == self.before
        again, nothing = step(self.rollout, found, now_s=self.now)
        if not (self.rollout.stage != self.before.stage or self.rollout.state != self.before.state):
            assert (again, nothing) == (self.rollout, ())

    @rule(later=st.floats(5, 60) | st.floats(100, 200))
    def wait_with_good_evidence(self, later: float) -> None:
        self.step(plan="harmless", silence="none", loops=0, later=later)

    @invariant()
    def terminal_states_stay(self) -> None:
        if self.before.state.terminal:
            assert self.rollout == self.before

    @invariant()
    def missing_data_never_promote(self) -> None:
        if self.missing:
            assert self.rollout.promoted == self.before.promoted

    @invariant()
    def no_gate_is_skipped(self) -> None:
        promotions = [place for place, event in enumerate(self.events) if event.kind is EventKind.PROMOTED]
        assert len(promotions) == self.rollout.promoted
        names = [stage.name for stage in self.rollout.stages]
        assert [self.events[place].stage for place in promotions] == names[: self.rollout.promoted]
        for place in promotions:
            look = self.events[place - 1]
            assert look.kind is EventKind.LOOKED
            assert look.decision is not None
            assert look.decision.answer is Answer.PROMOTE
            self.stage_had_its_time(place)
        assert self.rollout.promoted - self.before.promoted in {0, 1}
        assert (self.rollout.state is State.COMPLETED) is (self.rollout.promoted == len(names))

    def stage_had_its_time(self, place: int) -> None:
        """Check that the stage promoted at this event was approved where it asks for it, and has baked."""
        name, stage = (
            self.events[place].stage,
            next(each for each in self.rollout.stages if each.name == self.events[place].stage),
        )
        mine = [event for event in self.events[:place] if event.stage == name]
        started = [event for event in mine if event.kind in {EventKind.STAGE_STARTED, EventKind.EXTENDED}]
        assert self.events[place].at_s - started[-1].at_s >= stage.bake_s - 1e-6
        if stage.approval:
            assert [event.actor for event in mine if event.kind is EventKind.APPROVED] == ["ann"]

    @invariant()
    def it_is_kept_and_given_back(self) -> None:
        assert decode_rollout(encode_rollout(self.rollout)) == self.rollout

    @invariant()
    def the_held_back_wait_for_completion(self) -> None:
        if self.rollout.state is not State.COMPLETED:
            served = sum(in_cohort(self.rollout, f"device-{number}", frozenset()) for number in range(60))
            assert served < 60


Rollouts.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRollouts: Any = Rollouts.TestCase
