"""Stages that run a model: in this process with everything a `Runtime` has, or in a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgewise.contracts.pipeline import Gap
from edgewise.device.pipeline.pipeline import Stage, Ticket
from edgewise.device.pipeline.policy import Policy
from edgewise.device.runtime import Answer
from edgewise.device.session import BoundSession
from edgewise.device.worker import Worker
from edgewise.errors import ExecutionError
from edgewise.runtimes.base import Array

__all__ = ["Gap", "runtime_stage", "worker_stage"]

Arrays = Mapping[str, Array]


class _Stream:
    """Sees by the numbers of the items whether one is missing."""

    def __init__(self, gap: Gap) -> None:
        self._gap = gap
        self._last = -1

    def is_new(self, ticket: Ticket) -> bool:
        return self._gap is Gap.RESET and ticket.number != self._last + 1

    def passed(self, ticket: Ticket) -> None:
        self._last = ticket.number


class Answering(Protocol):
    """A `Runtime`, or one that a governor switches."""

    @property
    def session(self) -> BoundSession:
        """That of the variant that answers now."""
        ...

    def infer(self, inputs: Arrays, *, deadline_ms: float | None = None) -> Answer:
        """Answer once."""
        ...


def runtime_stage(name: str, runtime: Answering, policy: Policy, *, gap: Gap = Gap.CARRY) -> Stage:
    """Return a stage that answers with a runtime, whatever rung of its ladder the answer comes from.

    Its value goes from inputs to outputs by name, copies that nothing overwrites. The outcome stands in the ticket's
    `outcomes`; a refusal fails the item. A cancelled execution ends at the next operator, and moves no state.
    """
    stream = _Stream(gap)

    def run(inputs: Arrays, ticket: Ticket) -> Arrays:
        session = runtime.session
        session.allow()  # an item before this one may have been told to stop just after its end
        ticket.check()  # and this one before that
        if stream.is_new(ticket):
            session.reset()
        answer = runtime.infer(inputs, deadline_ms=ticket.left_ms())
        ticket.outcomes[name] = answer.outcome
        if not answer.outputs:
            raise ExecutionError(answer.outcome.reason)
        stream.passed(ticket)
        return {each: array.copy() for each, array in answer.outputs.items()}

    def stop() -> None:
        runtime.session.stop()

    return Stage(name, run, policy, stop)


def worker_stage(name: str, worker: Worker, policy: Policy, *, gap: Gap = Gap.CARRY) -> Stage:
    """Return a stage that executes in a worker process, which is ended where it hangs.

    A new process begins a new stream, whatever `gap` says.
    """
    stream = _Stream(gap)

    def run(inputs: Arrays, ticket: Ticket) -> Arrays:
        ticket.check()
        if stream.is_new(ticket):
            worker.reset()
        outputs = worker.run(inputs, deadline_ns=ticket.deadline_ns)
        stream.passed(ticket)
        return outputs

    return Stage(name, run, policy, worker.stop)
