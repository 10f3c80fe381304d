from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from edgewise.device.pipeline import End, Pipeline, Stage, Ticket, block, latest, reject
from edgewise.device.pipeline.core import (
    CANCELLED,
    CLOSED,
    DOOMED,
    FULL,
    HUNG,
    LATE,
    PREDICTED_LATE,
    REPLACED,
    Core,
    Item,
)
from edgewise.device.pipeline.policy import Policy
from edgewise.errors import ConfigError, ExecutionError

LONG_MS = 20_000.0


class Gate:
    """A stage that waits until it is let go, or stopped."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, value: Any, _ticket: Ticket) -> Any:
        self.entered.release()
        assert self.go.acquire(timeout=20)
        return value


def add(value: int, _ticket: Ticket) -> int:
    return value + 1


def gated(policy: Policy) -> tuple[Pipeline, Gate, Ticket]:
    """Return a pipeline of one stage that works on its first item, which is returned too."""
    gate = Gate()
    pipeline = Pipeline([Stage("gate", gate, policy)])
    first = pipeline.submit(0, deadline_ms=LONG_MS)
    assert gate.entered.acquire(timeout=20)
    return pipeline, gate, first


def test_values_go_through_the_stages_in_order() -> None:
    with Pipeline([Stage("a", add, block(2)), Stage("b", lambda value, _: value * 10, reject(2))]) as pipeline:
        tickets = []
        for value in range(5):
            tickets.append(pipeline.submit(value, deadline_ms=LONG_MS))
            assert tickets[-1].result()[:3] == (End.OUT, "", None)
    assert [each.value for each in tickets] == [10, 20, 30, 40, 50]
    assert not pipeline.lost


def test_each_policy_gives_way_as_it_says() -> None:
    pipeline, gate, first = gated(latest())
    second, third = (pipeline.submit(at, deadline_ms=LONG_MS) for at in (1, 2))
    assert second.result()[:3] == (End.DROPPED, REPLACED, "gate")
    gate.go.release(2)
    assert [each.result().end for each in (first, third)] == [End.OUT, End.OUT]
    pipeline.close()

    pipeline, gate, first = gated(reject(1))
    second, third = (pipeline.submit(at, deadline_ms=LONG_MS) for at in (1, 2))
    assert third.result()[:3] == (End.DROPPED, FULL, "gate")
    gate.go.release(2)
    assert [each.result().end for each in (first, second)] == [End.OUT, End.OUT]
    pipeline.close()


def test_a_full_mailbox_that_blocks_makes_the_bringer_wait_and_lets_him_in_as_soon_as_there_is_room() -> None:
    pipeline, gate, first = gated(block(1))
    second = pipeline.submit(1, deadline_ms=LONG_MS)
    brought: list[Ticket] = []
    bringer = threading.Thread(target=lambda: brought.append(pipeline.submit(2, deadline_ms=LONG_MS)))
    bringer.start()
    bringer.join(0.05)
    assert bringer.is_alive()
    assert pipeline.counts().offered == 2  # one who still waits outside has not offered anything
    gate.go.release()
    bringer.join(10)
    assert not bringer.is_alive()
    gate.go.release(2)
    assert [each.result().end for each in (first, second, *brought)] == [End.OUT] * 3
    pipeline.close()


def test_the_bringer_waits_no_longer_than_the_deadline() -> None:
    pipeline, gate, _ = gated(block(1))
    pipeline.submit(1, deadline_ms=LONG_MS)
    late = pipeline.submit(2, deadline_ms=20.0)
    assert late.ended is not None
    assert late.ended[:3] == (End.DROPPED, LATE, None)
    gate.go.release(2)
    pipeline.close()


def test_what_a_stage_raises_fails_that_item_alone() -> None:
    def picky(value: int, _ticket: Ticket) -> int:
        if value == 0:
            raise ExecutionError("no")
        if value == 1:
            sys.exit(3)
        return 6 // (value - 2)

    with Pipeline([Stage("picky", picky, block(8))]) as pipeline:
        ends = [pipeline.submit(value, deadline_ms=LONG_MS).result() for value in range(4)]
    assert [each.reason for each in ends] == [
        "no",
        "SystemExit: 3",
        "ZeroDivisionError: integer division or modulo by zero",
        "",
    ]
    assert [each.end for each in ends] == [End.FAILED] * 3 + [End.OUT]
    assert pipeline.lost == {("picky", "failed"): 3}


def test_a_waiting_item_is_cancelled_at_once_and_a_running_one_between_two_steps() -> None:
    steps = threading.Semaphore(0)

    def tokens(value: int, ticket: Ticket) -> int:
        for _ in range(10_000):
            ticket.check()
            steps.release()
            time.sleep(0.001)
        return value

    with Pipeline([Stage("tokens", tokens, block(2))]) as pipeline:
        running, waiting = (pipeline.submit(0, deadline_ms=LONG_MS) for _ in range(2))
        assert steps.acquire(timeout=10)
        waiting.cancel()
        assert waiting.ended is not None
        assert waiting.ended.reason == CANCELLED
        assert running.ended is None
        running.cancel()
        assert running.result()[:3] == (End.DROPPED, CANCELLED, "tokens")
        late = pipeline.submit(0, deadline_ms=30.0)
        assert late.result()[:3] == (End.DROPPED, LATE, "tokens")


def test_a_running_stage_is_told_to_stop() -> None:
    told = threading.Event()

    def wait(_value: int, _ticket: Ticket) -> None:
        assert told.wait(20)
        raise ExecutionError("cut")

    with Pipeline([Stage("wait", wait, block(1), told.set)]) as pipeline:
        ticket = pipeline.submit(0, deadline_ms=LONG_MS)
        while pipeline.counts().queued and not pipeline._core.is_running(0):
            time.sleep(0.001)
        ticket.cancel()
        assert ticket.result()[:2] == (End.DROPPED, CANCELLED)


def test_whoever_waits_for_an_item_that_hangs_is_told_and_its_stage_comes_back_later() -> None:
    pipeline, gate, first = gated(reject(2))
    hung, behind = first, pipeline.submit(1, deadline_ms=40.0)
    hung.deadline_ns = time.monotonic_ns() + 40_000_000
    assert hung.result()[:3] == (End.FAILED, HUNG, "gate")
    assert behind.result()[:2] == (End.DROPPED, LATE)
    assert pipeline.counts().queued == 0
    gate.go.release(2)
    assert pipeline.submit(2, deadline_ms=LONG_MS).result().end is End.OUT
    assert hung.ended is not None
    assert hung.ended.end is End.FAILED
    pipeline.close()


def test_closing_ends_everything_and_nothing_comes_in_afterwards() -> None:
    pipeline, gate, first = gated(block(2))
    waiting = pipeline.submit(1, deadline_ms=LONG_MS)
    gate.go.release()
    pipeline.close()
    assert waiting.result().reason in {CLOSED, CANCELLED, ""}
    assert first.result().end in {End.OUT, End.DROPPED}
    assert pipeline.submit(2, deadline_ms=LONG_MS).result()[:2] == (End.DROPPED, CLOSED)
    assert pipeline.counts().queued == 0


def test_stages_and_mailboxes_are_checked() -> None:
    with pytest.raises(ConfigError):
        Pipeline([])
    with pytest.raises(ConfigError, match="a, a"):
        Pipeline([Stage("a", add, block(1)), Stage("a", add, block(1))])
    for size in (0, -1, 1 << 20):
        with pytest.raises(ConfigError):
            reject(size)
    assert str(block(4)) == "block(4)"


def taught(core: Core[Item], *, takes: list[int], items: int = 30) -> int:
    """Let items through, each stage taking its time; return the time after."""
    now = 0
    for _ in range(items):
        item = Item(now + 10**9)
        core.offer(item, now)
        for duration in takes:
            assert core.take(now) is item
            now += duration
            core.finish(item, now)
    return now


def test_an_item_is_admitted_only_where_what_is_ahead_fits() -> None:
    core: Core[Item] = Core([("a", block(9)), ("b", block(9))])
    now = taught(core, takes=[10, 30])
    tight, fitting, second = Item(now + 39), Item(now + 40), Item(now + 69)
    core.offer(tight, now)
    assert tight.ended is not None
    assert tight.ended.reason == PREDICTED_LATE
    core.offer(fitting, now)
    assert fitting.ended is None
    core.offer(second, now)  # 10, then b is free only at 40: 70
    assert second.ended is not None
    third = Item(now + 70)
    core.offer(third, now)
    assert third.ended is None
    assert core.predicted_ns(now) == now + 100


def test_where_stages_take_what_is_expected_every_item_is_out_when_it_was_predicted_to_be() -> None:
    takes = (10, 30, 20)
    core: Core[Item] = Core([(str(at), block(99)) for at in range(3)])
    now = taught(core, takes=[*takes])
    items: list[Item] = []
    running: list[Item] = []
    for step in range(400):
        for item in [each for each in running if now - each.begun_ns == takes[each.stage]]:
            running.remove(item)
            core.finish(item, now)
        if step % 40 in {0, 3, 11}:  # before the stages take up what has come: then all is as in the prediction
            items.append(Item(now + 10**6))
            core.offer(items[-1], now)
        while (taken := core.take(now)) is not None:
            running.append(taken)
        now += 1
    done = [each for each in items if each.ended is not None]
    assert len(done) > 10
    assert [each.ended.at_ns - each.predicted_ns for each in done if each.ended] == [0] * len(done)


def test_an_item_is_dropped_at_the_first_stage_where_it_cannot_be_in_time() -> None:
    core: Core[Item] = Core([("a", block(9)), ("b", block(9)), ("c", block(9))])
    now = taught(core, takes=[10, 10, 10])
    item = Item(now + 40)
    core.offer(item, now)
    assert core.take(now) is item
    core.finish(item, now + 25)  # slower than ever
    assert core.take(now + 25) is None
    assert item.ended is not None
    assert item.ended[:3] == (End.DROPPED, DOOMED, "b")


def test_lateness_is_fed_back_to_the_entrance_and_ages_where_it_turns_everything_away() -> None:
    core: Core[Item] = Core([("a", latest())])
    now = taught(core, takes=[10])
    assert core.predicted_ns(now) == now + 10
    for _ in range(10):  # slow once in a while: not in the 95th percentile of the work, but in that of the lateness
        item = Item(now + 1000)
        core.offer(item, now)
        core.take(now + 50)  # whatever kept it from being begun
        now += 60
        core.finish(item, now)
    assert core.predicted_ns(now) == now + 60
    refused = 0
    while True:
        item = Item(now + 20)
        core.offer(item, now)
        if item.ended is None:
            break
        refused += 1
    assert 0 < refused <= 64


def test_an_item_held_before_a_full_mailbox_goes_on_when_there_is_room_and_can_be_cancelled() -> None:
    core: Core[Item] = Core([("a", block(9)), ("b", block(1))])
    running, waiting, held, behind = items = [Item(100) for _ in range(4)]
    for item in items:
        core.offer(item, 0)
    assert core.take(0) is running
    core.finish(running, 0)
    assert core.take(0) is running
    for item in (waiting, held):
        assert core.take(0) is item
        core.finish(item, 0)
    assert core.take(0) is None  # a has nowhere to put what it made
    core.cancel(held, 0)
    assert core.counts() == (4, 0, 1, 0, 3)
    assert core.take(0) is behind
    core.finish(behind, 0)
    assert core.take(0) is None
    core.finish(running, 0)
    assert [core.take(0), core.counts().queued] == [waiting, 2]
    core.finish(waiting, 0)
    assert core.take(0) is behind
