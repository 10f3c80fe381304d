from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgewise.device.pipeline import End, Pipeline, Stage, block
from edgewise.device.worker import Limits, Worker
from edgewise.device.worker.frames import Kind, Layout, check, decode_shapes, frame, parse, place
from edgewise.errors import ExecutionError, WorkerError
from tests.unit.device.worker.models import counting, hanging, number, widening

HOURS = 10**9


def soon(seconds: float = 30.0) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def address_space_mib(worker: Worker) -> int:
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def test_a_worker_answers_as_the_model_does_and_keeps_its_state(tmp_path: Path) -> None:
    with Worker(counting(tmp_path / "m.onnx"), state=[("state", "total")]) as worker:
        assert worker.await_ready(60) == "m"
        assert [float(worker.run(number(3), deadline_ns=soon())["total"][0]) for _ in range(2)] == [3.0, 6.0]
        worker.reset()
        kept = worker.run(number(2), deadline_ns=soon())["total"]
        worker.run(number(2), deadline_ns=soon())
        assert kept[0] == 2.0  # the caller's own
        for wrong in ({}, {"n": np.zeros(2, np.int64)}, {"n": np.zeros(1)}, {**number(1), "state": np.zeros(1)}):
            with pytest.raises(ExecutionError):
                worker.run(wrong, deadline_ns=soon())
        assert worker.counts() == (1, 0, 0)


def test_an_execution_is_cut_between_operators_at_its_deadline_or_when_it_is_stopped_and_the_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.device.worker.worker.GRACE_S", 20.0)  # however slow this machine is
    with Worker(counting(tmp_path / "m.onnx"), state=[("state", "total")]) as worker:
        worker.await_ready(60)
        worker.run(number(5), deadline_ns=soon())
        pid = worker.pid
        with pytest.raises(ExecutionError, match="cut"):
            worker.run(number(HOURS), deadline_ns=soon(0.05))
        threading.Timer(0.1, worker.stop).start()
        with pytest.raises(ExecutionError):
            worker.run(number(HOURS), deadline_ns=soon())
        worker.stop()  # nothing runs: nothing happens
        assert float(worker.run(number(1), deadline_ns=soon())["total"][0]) == 6.0
        assert (worker.pid, worker.counts()) == (pid, (1, 0, 0))


def test_a_hang_in_a_pipeline_is_ended_and_the_pipeline_goes_on(tmp_path: Path) -> None:
    with Worker(hanging(tmp_path / "m.onnx")) as worker:
        worker.await_ready(60)
        pid = worker.pid
        stage = Stage("boxes", lambda feeds, ticket: worker.run(feeds, deadline_ns=ticket.deadline_ns), block(4))
        with Pipeline([stage]) as pipeline:
            assert pipeline.submit(number(10), deadline_ms=20_000).result().end is End.OUT
            hung = pipeline.submit(number(1_000_000), deadline_ms=1500)  # in its one long operator by then
            ended = hung.result()
            assert (ended.end, ended.stage) == (End.FAILED, "boxes")
            after = pipeline.submit(number(10), deadline_ms=20_000)
            assert after.result().end is End.OUT
            assert after.value["found"][0] == 10
            assert pipeline.counts() == (3, 2, 0, 1, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
        assert worker.counts() == (2, 0, 1)


def test_a_process_that_dies_is_counted_and_replaced(tmp_path: Path) -> None:
    with Worker(counting(tmp_path / "m.onnx"), state=[("state", "total")]) as worker:
        worker.await_ready(60)
        worker.run(number(5), deadline_ns=soon())
        threading.Timer(0.1, os.kill, (worker.pid, signal.SIGSEGV)).start()
        with pytest.raises(WorkerError, match="SIGSEGV"):
            worker.run(number(HOURS), deadline_ns=soon())
        assert worker.counts() == (2, 1, 0)
        assert float(worker.run(number(1), deadline_ns=soon())["total"][0]) == 1.0  # a new stream


def test_a_model_that_needs_more_memory_than_it_may_have_fails_alone(tmp_path: Path) -> None:
    with Worker(widening(tmp_path / "m.onnx"), limits=Limits(memory_mib=1024)) as worker:
        worker.await_ready(60)
        assert worker.run(number(1000), deadline_ns=soon())["zeros"].shape == (1000,)
        with pytest.raises(WorkerError, match="allocate"):
            worker.run(number(1 << 30), deadline_ns=soon())
        with pytest.raises(ExecutionError, match="open_output_bytes"):
            worker.run(number(1 << 19), deadline_ns=soon())
        assert address_space_mib(worker) < 768  # the one that was refused would have taken all there is
        assert worker.run(number(7), deadline_ns=soon())["zeros"].shape == (7,)
        assert worker.counts() == (2, 1, 0)


def test_a_model_that_cannot_be_opened_is_said_and_tried_again_after_ever_longer_pauses(tmp_path: Path) -> None:
    with Worker(tmp_path / "nothing.onnx") as worker:
        for _ in range(2):
            with pytest.raises(ExecutionError, match="nothing"):
                worker.await_ready(60)
        with pytest.raises(WorkerError, match="2 times in a row"):
            worker.await_ready(60)
    with pytest.raises(WorkerError, match="closed"):
        worker.await_ready(60)


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    worker = Worker(counting(tmp_path / "m.onnx"))
    worker.await_ready(60)
    process = worker._process
    assert process is not None
    process._close()  # as when this process is killed
    assert process._child.wait(20) == 0


def test_what_a_child_says_is_checked() -> None:
    assert parse(frame(Kind.DONE, 7, b"x")) == (Kind.DONE, 7, b"x")
    for wrong in (b"", b"ewk1", b"\0" * 16, frame(Kind.DONE, 7).replace(b"ewk1", b"ewk2")):
        with pytest.raises(WorkerError):
            parse(wrong)
    good = Layout(variant="v", bundle=None, inputs=place([("x", "float32", (2, 3))], start=0, open_bytes=9), outputs=())
    check(good, most=64)
    (slot,) = good.inputs
    for change in (
        {"offset": 1},
        {"offset": -64},
        {"size": 1},
        {"shape": (-1, -6)},
        {"shape": (2**40, 2**40), "size": 2**82},
        {"dtype": "O"},
        {"dtype": "no"},
        {"shape": (1,) * 9, "size": 4},
    ):
        fields = {name: getattr(slot, name) for name in slot.__struct_fields__} | change
        with pytest.raises(WorkerError):
            check(Layout(variant="v", bundle=None, inputs=(type(slot)(**fields),), outputs=()), most=64)
    for data in (b"[[1]]", b"[[1],[-1]]", b"x", b"[]", b'[["a"],[1]]'):
        with pytest.raises(WorkerError):
            decode_shapes(data, count=2)
