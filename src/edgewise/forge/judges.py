"""Where variants are judged: in this process, in a local process pool, or on a Ray cluster.

A judge gets the bytes of a model and returns figures or a typed failure; everything else it needs
(the task, the select split, fp32's outputs) is sent to it once.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import msgspec

from edgewise.contracts.target import RuntimeName
from edgewise.errors import EdgewiseError, WorkerError
from edgewise.forge.judge import Judgement, Reference, judge
from edgewise.forge.tasks.base import Task
from edgewise.runtimes import runtime
from edgewise.runtimes.base import require

Report = Callable[[int], None]


class Failure(msgspec.Struct, frozen=True):
    """Why a variant could not be built or judged."""

    reason: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge needs besides the model."""

    task: Task
    reference: Reference
    runtime: RuntimeName
    threads: int


class Judges(Protocol):
    """Judges many models; the results are in the order of the models."""

    def judge(
        self, models: Sequence[bytes], *, positions: Sequence[int] | None = None, report: Report = lambda _: None
    ) -> list[Judgement | Failure]:
        """Judge all models on the whole split or on some of its positions; `report` gets the number done."""
        ...

    def close(self) -> None:
        """Let go of workers."""
        ...


class LocalJudges:
    """Judges one after the other in this process: best for small models, whose workers would cost more."""

    def __init__(self, assignment: Assignment) -> None:
        """Keep the assignment."""
        self._assignment = assignment

    def judge(
        self, models: Sequence[bytes], *, positions: Sequence[int] | None = None, report: Report = lambda _: None
    ) -> list[Judgement | Failure]:
        """See Judges."""
        results = []
        for done, model in enumerate(models, 1):
            results.append(judge_one(self._assignment, model, positions))
            report(done)
        return results

    def close(self) -> None:
        """Nothing is held."""


class PoolJudges:
    """Judges in worker processes of this machine."""

    def __init__(self, assignment: Assignment, *, workers: int) -> None:
        """Start `workers` fresh processes; each receives the assignment once."""
        self._pool = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_enlist,
            initargs=(assignment,),
        )

    def judge(
        self, models: Sequence[bytes], *, positions: Sequence[int] | None = None, report: Report = lambda _: None
    ) -> list[Judgement | Failure]:
        """See Judges. Raises WorkerError where a worker dies."""
        futures = {self._pool.submit(_judge_enlisted, model, positions): at for at, model in enumerate(models)}
        results: dict[int, Judgement | Failure] = {}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                results[futures[future]] = future.result()
                report(done)
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died while it judged a candidate",
                required="enough memory for the workers",
                next_step="run again (finished work is kept), with --workers 1 if memory is short",
            ) from error
        return [results[at] for at in range(len(models))]

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayJudges:
    """Judges on a Ray cluster (extra `cluster`)."""

    def __init__(self, assignment: Assignment, *, address: str) -> None:
        """Connect to the cluster at `address` (`local` starts one here) and ship the assignment once."""
        self._ray = require("ray", extra="cluster")
        try:
            self._ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerError(
                f"no Ray cluster answers at {address!r}",
                required="the address of a running cluster, or `local`",
                next_step="start one with `ray start --head` and pass its address",
            ) from error
        self._assignment = self._ray.put(assignment)
        self._remote = self._ray.remote(max_retries=2)(judge_one)

    def judge(
        self, models: Sequence[bytes], *, positions: Sequence[int] | None = None, report: Report = lambda _: None
    ) -> list[Judgement | Failure]:
        """See Judges."""
        pending = [self._remote.remote(self._assignment, model, positions) for model in models]
        order, done = list(pending), 0
        while pending:
            ready, pending = self._ray.wait(pending)
            done += len(ready)
            report(done)
        try:
            results: list[Judgement | Failure] = self._ray.get(order)
        except self._ray.exceptions.RayTaskError:  # a fault of ours, told as what it is
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerError(
                f"the cluster lost a worker: {str(error).splitlines()[0]}",
                required="a healthy cluster",
                next_step="look at `ray status`, then run again (finished work is kept)",
            ) from error
        return results

    def close(self) -> None:
        """Disconnect."""
        self._ray.shutdown()


def judge_one(assignment: Assignment, model: bytes, positions: Sequence[int] | None) -> Judgement | Failure:
    """Load and judge one model; what goes wrong becomes a Failure with its reason."""
    try:
        session = runtime(assignment.runtime).load(model, threads=assignment.threads)
        return judge(assignment.task, session, assignment.reference, positions=positions)
    except EdgewiseError as error:
        return Failure(str(error).splitlines()[0])


_ENLISTED: list[Assignment] = []


def _enlist(assignment: Assignment) -> None:
    _ENLISTED[:] = [assignment]


def _judge_enlisted(model: bytes, positions: Sequence[int] | None) -> Judgement | Failure:
    return judge_one(_ENLISTED[0], model, positions)
