"""Mailboxes, admission and the ends of items: a state machine without threads, values or a clock of its own.

What holds after every call: items offered = out + dropped + failed + queued, and every item ends once, with a reason.

An item is admitted where the prediction of its end is before its deadline, and dropped at the first stage where it no
longer is. The prediction adds up the 95th percentiles of the stages ahead and of the items before it there, which is
cautious: stages are seldom slow together. How much later than predicted items came out is fed back to the entrance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from edgewise.device.pipeline.policy import Full, Policy
from edgewise.device.pipeline.window import Window

PREDICTED_LATE = "predicted to be late"
DOOMED = "cannot be in time any more"
LATE = "late"
FULL = "the mailbox is full"
REPLACED = "replaced by a newer one"
CANCELLED = "cancelled"
CLOSED = "the pipeline is closed"
HUNG = "did not come back"


class End(StrEnum):
    """How an item ends: exactly one of these."""

    OUT = "out"
    DROPPED = "dropped"
    """On purpose: for its deadline, by a mailbox's policy, cancelled or closed."""
    FAILED = "failed"
    """A stage could not do its work."""


class Ended(NamedTuple):
    """An item's end. `stage` is where, None before the first and after the last."""

    end: End
    reason: str
    stage: str | None
    at_ns: int


class Item:
    """What goes through; `number` counts from 0 in the order of arrival."""

    __slots__ = ("begun_ns", "deadline_ns", "ended", "is_cancelled", "number", "predicted_ns", "stage")

    def __init__(self, deadline_ns: int) -> None:
        """Give it an absolute deadline of the same clock as all `now`."""
        self.deadline_ns = deadline_ns
        self.number = -1
        self.stage = 0
        self.begun_ns = 0
        self.predicted_ns = 0
        self.is_cancelled = False
        self.ended: Ended | None = None


ItemT = TypeVar("ItemT", bound=Item)


class Counts(NamedTuple):
    """Items until now; `offered` is the sum of the others."""

    offered: int
    out: int
    dropped: int
    failed: int
    queued: int
    """Those that wait or run. Counted where they are, not as what is missing from the sum."""


class _Stage(Generic[ItemT]):
    __slots__ = ("held", "name", "policy", "running", "service", "waiting")

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.waiting: deque[ItemT] = deque()
        self.running: ItemT | None = None
        self.held: ItemT | None = None
        """Done here, but the next mailbox blocks."""
        self.service = Window()

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= self.policy.size


class Core(Generic[ItemT]):
    """The state of one pipeline; every call takes the time in nanoseconds."""

    def __init__(self, stages: Sequence[tuple[str, Policy]]) -> None:
        """Start empty, with one mailbox before each of the stages."""
        self._stages: list[_Stage[ItemT]] = [_Stage(name, policy) for name, policy in stages]
        self._downstream_first = tuple(reversed(range(len(self._stages))))
        self._lateness = Window()
        self._number = 0
        self._ends = dict.fromkeys(End, 0)
        self._is_closed = False
        self.just_ended: list[ItemT] = []
        """Items whose end nobody has been told yet; whoever tells them clears it."""

    def counts(self) -> Counts:
        """Count the items."""
        queued = 0
        for stage in self._stages:
            running = stage.running is not None and stage.running.ended is None
            queued += len(stage.waiting) + running + (stage.held is not None)
        ends = self._ends
        return Counts(self._number, ends[End.OUT], ends[End.DROPPED], ends[End.FAILED], queued)

    def offer(self, item: ItemT, now: int) -> bool:
        """Take an item in, or end it at once; return False where its bringer has to wait and ask again."""
        first = self._stages[0]
        if self._is_closed:
            self._turn_away(item, CLOSED, now)
            return True
        if first.is_full and first.policy.full is Full.BLOCK and item.deadline_ns > now and not item.is_cancelled:
            return False
        item.predicted_ns = self._finish_ns(0, now)
        if item.is_cancelled or item.deadline_ns <= now:
            self._turn_away(item, CANCELLED if item.is_cancelled else LATE, now)
        elif item.predicted_ns + self._lateness.p95_ns > item.deadline_ns:
            self._turn_away(item, PREDICTED_LATE, now)
            self._forget()
        else:
            self._count(item)
            self._put(0, item, now)
        return True

    def take(self, now: int) -> ItemT | None:
        """Return the next item to work on, of the free stage nearest the end, and begin it."""
        for at in self._downstream_first:
            stage = self._stages[at]
            while stage.waiting and stage.running is None and stage.held is None:
                item = stage.waiting.popleft()
                self._pull(at, now)
                if self._is_doomed(item, at, now):
                    continue
                stage.running, item.begun_ns = item, now
                return item
        return None

    @property
    def has_work(self) -> bool:
        """Whether `take` may have something to give."""
        return any(each.waiting and each.running is None and each.held is None for each in self._stages)

    @property
    def has_room(self) -> bool:
        """Whether the first mailbox takes an item."""
        return not self._stages[0].is_full

    def finish(self, item: ItemT, now: int) -> None:
        """Note that the stage is done with its item, which goes on to the next."""
        at = item.stage
        stage = self._stages[at]
        stage.running = None
        stage.service.add(now - item.begun_ns)
        if item.ended is not None:  # given up before
            return
        is_last = at + 1 == len(self._stages)
        if is_last:
            self._lateness.add(max(0, now - item.predicted_ns))
        if now > item.deadline_ns or item.is_cancelled:
            self._end_unwanted(item, now)
        elif is_last:
            self._end(item, End.OUT, "", now)
        elif self._stages[at + 1].is_full and self._stages[at + 1].policy.full is Full.BLOCK:
            stage.held = item
        else:
            self._put(at + 1, item, now)

    def fail(self, item: ItemT, reason: str, now: int) -> None:
        """Note that the stage has not done its work; no reason: it stopped because nobody waits any more."""
        stage = self._stages[item.stage]
        stage.running = None
        taken = now - item.begun_ns
        if taken > stage.service.p95_ns:  # a fast failure says nothing about the work, a hang does
            stage.service.add(taken)
        if item.ended is not None:
            return
        if not reason:
            self._end_unwanted(item, now)
        else:
            self._end(item, End.FAILED, reason, now)

    def cancel(self, item: ItemT, now: int, reason: str = CANCELLED) -> None:
        """End an item that waits. One that runs ends when its stage lets go of it."""
        if item.ended is not None:
            return
        item.is_cancelled = True
        if item.number < 0:  # not offered yet
            return
        stage = self._stages[item.stage]
        if stage.held is item:
            stage.held = None
        elif stage.running is item:
            return
        else:
            stage.waiting.remove(item)
            self._pull(item.stage, now)
        self._end(item, End.DROPPED, reason, now)

    def give_up(self, item: ItemT, now: int) -> None:
        """End an item that hangs. Its stage stays taken until it comes back."""
        if item.ended is None:
            self._end(item, End.FAILED, HUNG, now)

    def close(self, now: int) -> None:
        """Take nothing more; what waits is dropped, what runs ends as if cancelled."""
        self._is_closed = True
        for stage in self._stages:
            for item in (*stage.waiting, *([stage.held] if stage.held else [])):
                self._end(item, End.DROPPED, CLOSED, now)
            stage.waiting.clear()
            stage.held = None
            if stage.running is not None:
                stage.running.is_cancelled = True

    def is_running(self, at: int) -> bool:
        """Return whether stage number `at` works."""
        return self._stages[at].running is not None

    def predicted_ns(self, now: int) -> int:
        """Return when an item that arrives now would be out, as admission sees it."""
        return self._finish_ns(0, now) + self._lateness.p95_ns

    def _finish_ns(self, first: int, now: int, *, is_next: bool = False) -> int:
        """Return when an item that arrives at a stage now leaves the last; `is_next`: none waits before it there.

        Exact where every stage takes its 95th percentile and no mailbox drops or blocks. `lead` and `clear` are when
        the first and the last of the `before` items that are ahead leave a stage.
        """
        finish = lead = clear = now
        before = 0
        for at in range(first, len(self._stages)):
            stage = self._stages[at]
            service = stage.service.p95_ns
            waiting = 0 if is_next and at == first else len(stage.waiting)
            if stage.policy.full is Full.LATEST:  # what waits gives way to the item
                waiting, before, clear = 0, min(before, 1), now
            running = stage.running
            left = 0 if running is None else max(0, service - (now - running.begun_ns))
            begin = max(now + left + waiting * service, lead) if before else now + left + waiting * service
            clear = max(begin + before * service, clear + service) if before else begin
            finish = max(finish, clear) + service
            if running is not None or waiting:
                lead = now + (left if running is not None else service)
            elif before:
                lead += service
            before += waiting + (running is not None)
            if stage.held is not None:
                lead, before = now, before + 1
        return finish

    def _is_doomed(self, item: ItemT, at: int, now: int) -> bool:
        """Drop an item that cannot be in time."""
        finish = self._finish_ns(at, now, is_next=True)
        if finish <= item.deadline_ns and now < item.deadline_ns:
            return False
        self._lateness.add(max(0, finish - item.predicted_ns))
        self._forget()
        self._end(item, End.DROPPED, DOOMED, now)
        return True

    def _end_unwanted(self, item: ItemT, now: int) -> None:
        self._end(item, End.DROPPED, LATE if now > item.deadline_ns else CANCELLED, now)

    def _put(self, at: int, item: ItemT, now: int) -> None:
        """Lay an item into a mailbox that does not block."""
        stage = self._stages[at]
        item.stage = at
        if stage.is_full:
            if stage.policy.full is Full.REJECT:
                self._end(item, End.DROPPED, FULL, now)
                return
            self._end(stage.waiting.popleft(), End.DROPPED, REPLACED, now)
        stage.waiting.append(item)

    def _pull(self, at: int, now: int) -> None:
        """Fill the room in a mailbox from the stage before, where one holds an item for it."""
        before = self._stages[at - 1] if at else None
        if before is not None and before.held is not None and not self._stages[at].is_full:
            item, before.held = before.held, None
            self._put(at, item, now)

    def _turn_away(self, item: ItemT, reason: str, now: int) -> None:
        self._count(item)
        self._end(item, End.DROPPED, reason, now, is_inside=False)

    def _count(self, item: ItemT) -> None:
        item.number = self._number
        self._number += 1

    def _forget(self) -> None:
        self._lateness.forget()
        for stage in self._stages:
            stage.service.forget()

    def _end(self, item: ItemT, end: End, reason: str, now: int, *, is_inside: bool = True) -> None:
        stage = self._stages[item.stage].name if is_inside and end is not End.OUT else None
        item.ended = Ended(end, reason, stage, now)
        self._ends[end] += 1
        self.just_ended.append(item)
