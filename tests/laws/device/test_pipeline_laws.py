"""Every item that is offered to a pipeline ends exactly once: in = out + dropped + failed + queued, at any moment."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.device.pipeline import Counts, End, Ended, Pipeline, Stage, Ticket
from edgewise.device.pipeline.core import Core, Item
from edgewise.device.pipeline.policy import Full, Policy

POLICIES = st.builds(Policy, st.sampled_from(Full), st.integers(1, 3))
PARTS = st.lists(POLICIES, min_size=1, max_size=4)
ACTS = {"offer": 6, "take": 8, "finish": 6, "fail": 1, "stop": 1, "cancel": 3, "give up": 1, "close": 0.02}
"""What happens in a walk, and how often: lists that hypothesis draws are too short to fill mailboxes."""


def conserved(counts: Counts) -> bool:
    return counts.offered == counts.out + counts.dropped + counts.failed + counts.queued


class Model:
    """Drives a core as threads would, and remembers what it was told."""

    def __init__(self, policies: list[Policy]) -> None:
        self.core: Core[Item] = Core([(str(at), each) for at, each in enumerate(policies)])
        self.now = 0
        self.running: list[Item] = []
        self.items: list[Item] = []
        self.told: list[Item] = []
        self.is_closed = False

    def act(self, name: str, number: int) -> None:
        match name:
            case "offer":
                item = Item(self.now + 10 * number)
                if self.core.offer(item, self.now):
                    self.items.append(item)
            case "take":
                taken = self.core.take(self.now)
                self.running += [taken] if taken is not None else []
            case "finish" | "fail" | "stop" if self.running:
                item = self.running.pop(number % len(self.running))
                if name == "finish":
                    self.core.finish(item, self.now)
                else:
                    self.core.fail(item, "broken" if name == "fail" else "", self.now)
            case "give up" if self.running:
                self.core.give_up(self.running[number % len(self.running)], self.now)
            case "cancel" if self.items:
                self.core.cancel(self.items[-1 - number % min(8, len(self.items))], self.now)
            case "close":
                self.core.close(self.now)
                self.is_closed = True

    def check(self) -> None:
        for item in self.core.just_ended:
            assert item.ended is not None
            assert all(item is not each for each in self.told), "an item ended twice"
        self.told += self.core.just_ended
        self.core.just_ended.clear()
        counts = self.core.counts()
        assert conserved(counts)
        assert counts.offered == len(self.items)
        assert counts.queued == sum(item.ended is None for item in self.items)
        assert len(self.told) == len(self.items) - counts.queued
        self.check_places()
        stages = [each.stage for each in self.running]
        assert len(set(stages)) == len(stages), "a stage works on two items"
        for item in self.told:
            assert item.ended is not None
            assert (item.ended.end is End.OUT) == (item.ended.reason == "")
            assert item.ended.end is not End.OUT or item.ended.at_ns <= item.deadline_ns
        assert [item.number for item in self.items] == list(range(len(self.items)))

    def check_places(self) -> None:
        stages = self.core._stages
        for stage in stages:
            assert len(stage.waiting) <= stage.policy.size
            assert not (stage.held is not None and stage.running is not None)
        for before, after in pairwise(stages):
            assert before.held is None or after.is_full, "an item is held although there is room"


@settings(max_examples=60, deadline=None)
@given(PARTS, st.integers(0, 2**32), st.integers(1, 250))
def test_the_core_conserves_its_items(policies: list[Policy], seed: int, steps: int) -> None:
    model = Model(policies)
    random = Random(seed)  # noqa: S311 - a walk, no secret
    for name in random.choices([*ACTS], [*ACTS.values()], k=steps):
        model.now += random.choice([0, 0, 0, 1, 10])
        model.act(name, random.randrange(21))
        model.check()
    model.core.close(model.now)
    for item in model.running:
        model.core.fail(item, "", model.now)
    model.check()
    assert model.core.counts().queued == 0
    late = Item(model.now + 100)
    assert model.core.offer(late, model.now)
    assert late.ended is not None


class Work:
    """A stage that takes its time, fails or hangs on as the item's value says."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.busy = threading.Lock()

    def __call__(self, value: list[tuple[int, str]], ticket: Ticket) -> Any:
        assert self.busy.acquire(blocking=False), "a stage works on two items"
        try:
            micros, kind = value[self.at]
            until = time.monotonic_ns() + micros * 1000
            while time.monotonic_ns() < until:
                if kind == "looks":
                    ticket.check()
                time.sleep(0)
            if kind == "fails":
                raise ValueError("broken")
            return value
        finally:
            self.busy.release()


ITEMS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 800), st.sampled_from(["works", "looks", "fails"])), min_size=4, max_size=4),
        st.integers(0, 6000),  # deadline, us
        st.sampled_from(["keep", "keep", "cancel"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(PARTS, st.lists(ITEMS, min_size=1, max_size=2), st.sampled_from(["wait", "close"]))
def test_the_threads_conserve_their_items(policies: list[Policy], loads: list[Any], ending: str) -> None:
    pipeline = Pipeline([Stage(str(at), Work(at), policy) for at, policy in enumerate(policies)])
    tickets: list[Ticket] = []
    ends: list[Ended] = []

    def bring(load: list[Any]) -> None:
        for value, deadline_us, fate in load:
            ticket = pipeline.submit(value, deadline_ms=deadline_us / 1000)
            tickets.append(ticket)
            if fate == "cancel":
                ticket.cancel()
            assert conserved(pipeline.counts())

    threads = [threading.Thread(target=bring, args=(each,)) for each in loads]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if ending == "close":
        pipeline.close()
    ends = [each.result() for each in tickets]
    counts = pipeline.counts()
    pipeline.close()
    assert conserved(counts)
    assert counts == pipeline.counts()
    assert counts.queued == 0
    assert counts.offered == sum(len(each) for each in loads)
    assert counts.out == sum(each.end is End.OUT for each in ends)
    assert counts.failed == sum(each.end is End.FAILED for each in ends)
    assert counts.dropped + counts.failed == sum(pipeline.lost.values())
    assert not any(each.is_alive() for each in pipeline._threads)
