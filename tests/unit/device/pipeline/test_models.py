from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device import Runtime
from edgewise.device.pipeline import End, Pipeline, Stage, Ticket, block
from edgewise.device.pipeline.models import Gap, runtime_stage, worker_stage
from edgewise.device.worker import Worker
from tests.unit.device.worker.models import counting, number

LONG_MS = 20_000.0
HOURS = 10**9
STATE = [("state", "total")]


def totals(pipeline: Pipeline, counts: list[int]) -> list[float | None]:
    found = []
    for count in counts:
        ticket = pipeline.submit(number(count), deadline_ms=LONG_MS)
        found.append(float(ticket.value["total"][0]) if ticket.result().end is End.OUT else None)
    return found


def picky(value: dict[str, Any], _ticket: Ticket) -> dict[str, Any]:
    if value["n"][0] < 0:
        raise ValueError("negative")
    return value


def test_a_stream_goes_on_or_begins_anew_where_an_item_did_not_reach_its_model(tmp_path: Path) -> None:
    model = counting(tmp_path / "m.onnx")
    with Worker(model, state=STATE) as worker:
        worker.await_ready(60)
        for gap, after in ((Gap.CARRY, [6.0, 10.0]), (Gap.RESET, [3.0, 7.0])):
            worker.reset()
            for stage in (
                runtime_stage("model", Runtime.open(model, state=STATE), block(2), gap=gap),
                worker_stage("model", worker, block(2), gap=gap),
            ):
                with Pipeline([Stage("picky", picky, block(2)), stage]) as pipeline:
                    assert totals(pipeline, [1, 2, -1, 3, 4]) == [1.0, 3.0, None, *after]


def test_what_one_stage_gave_is_not_overwritten_while_the_next_reads_it(tmp_path: Path) -> None:
    runtime = Runtime.open(counting(tmp_path / "m.onnx"), state=STATE)
    with Pipeline([runtime_stage("model", runtime, block(8))]) as pipeline:
        tickets = [pipeline.submit(number(1), deadline_ms=LONG_MS) for _ in range(3)]
        assert all(each.result().end is End.OUT for each in tickets)
    assert [float(each.value["total"][0]) for each in tickets] == [1.0, 2.0, 3.0]
    assert all(each.outcomes["model"].kind is OutcomeKind.LOCAL for each in tickets)


def test_a_model_that_runs_is_cut_when_its_item_is_cancelled_and_its_state_stays(tmp_path: Path) -> None:
    runtime = Runtime.open(counting(tmp_path / "m.onnx"), state=STATE)
    entered = threading.Event()
    stage = runtime_stage("model", runtime, block(2))

    def run(value: Any, ticket: Ticket) -> Any:
        entered.set()
        return stage.run(value, ticket)

    with Pipeline([stage._replace(run=run)]) as pipeline:
        assert totals(pipeline, [5]) == [5.0]
        entered.clear()
        long = pipeline.submit(number(HOURS), deadline_ms=LONG_MS)
        assert entered.wait(20)
        while long.ended is None:  # once may be too early: before the execution has begun
            long.cancel()
            threading.Event().wait(0.005)
        assert (long.ended.end, long.ended.stage) == (End.DROPPED, "model")
        assert totals(pipeline, [1]) == [6.0]


def test_a_refusal_fails_the_item(tmp_path: Path) -> None:
    runtime = Runtime.open(counting(tmp_path / "m.onnx"), state=STATE)
    with Pipeline([runtime_stage("model", runtime, block(2))]) as pipeline:
        ticket = pipeline.submit({"n": np.zeros(2, np.int64)}, deadline_ms=LONG_MS)
        assert ticket.result().end is End.FAILED
        assert ticket.outcomes["model"].kind is OutcomeKind.REFUSED
