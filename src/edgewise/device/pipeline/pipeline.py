"""The threads around the core: as many as there are stages, and any of them works on any stage.

A thread that is done with an item goes on with the same one where the next stage is free: no other thread has to be
woken, which would cost more than the hop. A stage never works on two items at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from edgewise.contracts.outcome import Outcome
from edgewise.device.pipeline.core import CANCELLED, LATE, Core, Counts, End, Ended, Item
from edgewise.device.pipeline.policy import Policy
from edgewise.errors import ConfigError, EdgewiseError, WorkerError

GRACE_NS = 100_000_000
"""How long after its deadline a stage may take to let go of an item before that is given up."""


FAILED = "failed"


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A stage stopped because nobody waits for its item any more: it is cancelled, or late."""


class Ticket(Item):
    """One item of a pipeline, for the one who brought it and for the stages that work on it."""

    __slots__ = ("_pipeline", "_signal", "outcomes", "value")

    def __init__(self, pipeline: Pipeline, value: Any, deadline_ns: int) -> None:
        """Made by `Pipeline.submit`."""
        super().__init__(deadline_ns)
        self._pipeline = pipeline
        self._signal: threading.Lock | None = None
        self.value = value
        """What the last stage gave, once the item is out."""
        self.outcomes: dict[str, Outcome] = {}
        """What the models' answers were, by stage."""

    def check(self) -> None:
        """For stages that work in steps (one token, say): raise Stopped where nobody waits any more."""
        if self.is_cancelled or time.monotonic_ns() >= self.deadline_ns:
            raise Stopped

    def left_ms(self) -> float:
        """Return the time that is left until the deadline."""
        return (self.deadline_ns - time.monotonic_ns()) / 1e6

    def cancel(self) -> None:
        """End the item: at once where it waits, as soon as its stage can stop where it runs."""
        self._pipeline.cancel(self)

    def result(self) -> Ended:
        """Wait for the end, which comes 100 ms after the deadline at the latest."""
        return self._pipeline.wait(self)


class Stage(NamedTuple):
    """One step. `run` gets a value and its ticket and returns the next value; what it raises fails the item.

    `stop` is called, from another thread, when the item that `run` works on is cancelled; it must not wait.
    """

    name: str
    run: Callable[[Any, Ticket], Any]
    policy: Policy
    stop: Callable[[], None] | None = None


class Pipeline:
    """Stages with their mailboxes. Any thread may bring items; close it, or use it in a `with` block."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Start the threads. Raises ConfigError without stages, or where two have one name."""
        names = [each.name for each in stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"the stages {', '.join(names) or '(none)'}", required="at least one, each name once")
        self._stages = tuple(stages)
        self._core: Core[Ticket] = Core([(each.name, each.policy) for each in stages])
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._idle = self._bringing = 0
        self._is_closed = False
        self.lost: dict[tuple[str | None, str], int] = {}
        """How many were dropped, by stage and reason, or failed, by stage."""
        self._threads = [
            threading.Thread(target=self._loop, name=f"edgewise-pipeline-{at}", daemon=True)
            for at in range(len(self._stages))
        ]
        for each in self._threads:
            each.start()

    def submit(self, value: Any, *, deadline_ms: float) -> Ticket:
        """Bring a value in; the deadline counts from this call.

        Waits only where the first mailbox blocks and is full, at most until the deadline. The ticket of an item that
        is not admitted has ended already.
        """
        ticket = Ticket(self, value, time.monotonic_ns() + int(deadline_ms * 1e6))
        with self._work:
            while not self._core.offer(ticket, time.monotonic_ns()):
                self._bringing += 1
                self._room.wait(max(0.0, ticket.left_ms() / 1e3))
                self._bringing -= 1
            self._tell()
            if self._idle and ticket.ended is None:
                self._work.notify()
        return ticket

    def counts(self) -> Counts:
        """Count the items: offered = out + dropped + failed + queued."""
        with self._work:
            return self._core.counts()

    def cancel(self, ticket: Ticket) -> None:
        """See `Ticket.cancel`."""
        with self._work:
            self._cancel(ticket, CANCELLED)

    def wait(self, ticket: Ticket) -> Ended:
        """See `Ticket.result`."""
        with self._work:
            if ticket.ended is not None:
                return ticket.ended
            signal = ticket._signal  # noqa: SLF001 - the two classes are one thing seen from two sides
            if signal is None:
                signal = ticket._signal = threading.Lock()  # noqa: SLF001 - as above
                signal.acquire()
        self._await(signal, ticket.deadline_ns)
        if ticket.ended is None:
            with self._work:
                self._cancel(ticket, LATE)
            self._await(signal, ticket.deadline_ns + GRACE_NS)
        with self._work:
            self._core.give_up(ticket, time.monotonic_ns())
            self._tell()
        if ticket.ended is None:
            raise RuntimeError("an item that was given up has not ended")
        return ticket.ended

    def close(self) -> None:
        """Drop what waits, stop what runs, and end the threads; one that hangs in a stage is left alone."""
        with self._work:
            self._is_closed = True
            self._core.close(time.monotonic_ns())
            for at, stage in enumerate(self._stages):
                if stage.stop is not None and self._core.is_running(at):
                    stage.stop()
            self._tell()
            self._work.notify_all()
            self._room.notify_all()
        until = time.monotonic() + GRACE_NS / 1e9
        for each in self._threads:
            each.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        """Return the pipeline."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _await(self, signal: threading.Lock, until_ns: int) -> None:
        if signal.acquire(timeout=max(0.0, (until_ns - time.monotonic_ns()) / 1e9)):
            signal.release()  # for others who wait for the same item

    def _cancel(self, ticket: Ticket, reason: str) -> None:
        self._core.cancel(ticket, time.monotonic_ns(), reason)
        if ticket.ended is None and ticket.number >= 0:
            # Under the lock: the stage cannot have gone on to another item.
            stop = self._stages[ticket.stage].stop
            if stop is not None:
                stop()
        self._tell()
        if self._core.has_work:
            self._work.notify()

    def _loop(self) -> None:
        """Work until closed."""
        ticket: Ticket | None = None
        value: Any = None
        failure: str | None = None
        while True:
            with self._work:
                if ticket is not None:
                    self._done(ticket, value, failure)
                ticket = self._next()
                if ticket is None:
                    return
            value, failure = self._worked(ticket)

    def _done(self, ticket: Ticket, value: Any, failure: str | None) -> None:
        now = time.monotonic_ns()
        if failure is None:
            ticket.value = value
            self._core.finish(ticket, now)
        else:
            self._core.fail(ticket, failure, now)
        self._tell()

    def _next(self) -> Ticket | None:
        """Wait for an item to work on; None when closed."""
        while True:
            ticket = self._core.take(time.monotonic_ns())
            self._tell()
            if self._bringing and self._core.has_room:
                self._room.notify_all()
            if ticket is not None:
                if self._idle and self._core.has_work:
                    self._work.notify()
                return ticket
            if self._is_closed:
                return None
            self._idle += 1
            self._work.wait()
            self._idle -= 1

    def _worked(self, ticket: Ticket) -> tuple[Any, str | None]:
        """Return the stage's value, or why there is none; the empty reason is that nobody waits for it."""
        try:
            return self._stages[ticket.stage].run(ticket.value, ticket), None
        except Stopped:
            return None, ""
        except WorkerError as error:
            return None, error.found
        except EdgewiseError as error:  # one that is cancelled was told to fail
            return None, "" if ticket.is_cancelled else error.found or type(error).__name__
        except BaseException as error:  # noqa: BLE001 - whatever a stage raises, sys.exit too, fails its item alone
            return None, f"{type(error).__name__}: {error}"

    def _tell(self) -> None:
        """Wake whoever waits for the items that have ended."""
        for ticket in self._core.just_ended:
            ended = ticket.ended
            if ended is not None and ended.end is not End.OUT:
                key = (ended.stage, ended.reason if ended.end is End.DROPPED else FAILED)
                self.lost[key] = self.lost.get(key, 0) + 1
            if ticket._signal is not None:  # noqa: SLF001 - as in `wait`
                ticket._signal.release()  # noqa: SLF001 - as in `wait`
        self._core.just_ended.clear()
