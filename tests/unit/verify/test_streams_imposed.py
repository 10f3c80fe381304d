"""Real processes: they start, stream, are slowed, pressed and refused, and are gone afterwards. No time is asserted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.verification import Depth, Grade, Section
from edgewise.errors import ExecutionError, WorkerError
from edgewise.forge.progress import Silent
from edgewise.forge.tasks.base import Feeds
from edgewise.forge.verify.streams import conditions
from edgewise.forge.verify.streams import suite as streaming
from edgewise.forge.verify.streams.conditions import Unimposable
from edgewise.forge.verify.streams.worker import Worker
from tests.unit.cli.models import small
from tests.unit.forge.nets import Arrays
from tests.unit.runtimes.models import serialised
from tests.unit.verify.subjects_by_hand import subject

WHOLE = streaming.Plan(soak=0.1, reference=0.1, condition=0.1, turns=1, starts=2)
FEEDS: list[Feeds] = [{"x": np.full((1, 3, 16, 16), value, np.float32)} for value in range(3)]


def worker(folder: Path, model: bytes | None = None, **options: int | None) -> Worker:
    path = folder / "model.onnx"
    path.write_bytes(serialised(small()) if model is None else model)
    return Worker(path, FEEDS, runtime=RuntimeName.ONNXRUNTIME, threads=1, folder=folder, **options)


def test_a_worker_streams_also_while_it_is_slowed_and_ends_with_its_context(tmp_path: Path) -> None:
    with worker(tmp_path) as mine:
        process = psutil.Process(mine.process)
        assert mine.start.total_ms > mine.start.load_ms > 0
        stream = mine.stream(fps=500.0, seconds=0.1)
        assert stream.frames == 50
        assert (stream.service_ms > 0).all()
        assert (np.diff(stream.begun_ns) > 0).all()
        assert stream.resident_bytes.min() > 1 << 20
        for condition in (conditions.heat, conditions.low_battery):
            with condition([mine]):
                assert mine.stream(fps=100.0, seconds=0.1).frames == 10
            assert process.status() != psutil.STATUS_STOPPED
    assert not psutil.pid_exists(mine.process) or process.status() == psutil.STATUS_ZOMBIE


def test_contention_keeps_every_core_busy_and_leaves_nobody_behind() -> None:
    before = {each.pid for each in psutil.Process().children()}
    with conditions.contention([]):
        hogs = {each.pid for each in psutil.Process().children()} - before
        assert len(hogs) == len(os.sched_getaffinity(0))
    assert not {each.pid for each in psutil.Process().children()} & hogs


def test_a_model_that_is_refused_or_finds_no_memory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="could not load"):
        worker(tmp_path, b"not a model")
    with pytest.raises((ExecutionError, WorkerError)):
        worker(tmp_path, data_limit_bytes=0)


def test_a_process_that_dies_is_told_from_a_refusal(tmp_path: Path) -> None:
    with worker(tmp_path) as mine:
        os.kill(mine.process, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9"):
            mine.stream(fps=100.0, seconds=0.1)


def test_the_governor_is_set_and_set_back(tmp_path: Path) -> None:
    with pytest.raises(Unimposable, match="cpufreq"), conditions.powersave([], processors=tmp_path):
        pass
    files = [tmp_path / f"cpu{number}" / "cpufreq" / "scaling_governor" for number in range(2)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("schedutil\n")
    with conditions.powersave([], processors=tmp_path):
        assert [file.read_text() for file in files] == ["powersave"] * 2
    assert [file.read_text() for file in files] == ["schedutil"] * 2


def test_a_cgroup_presses_each_worker_or_says_why_not(tmp_path: Path) -> None:
    with pytest.raises(Unimposable, match="no cgroup v2"), conditions.memory_reclaim([], root=tmp_path):
        pass
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("cpu pids")
    with pytest.raises(Unimposable, match="not handed down"), conditions.memory_reclaim([], root=tmp_path):
        pass
    control.write_text("cpu memory pids")
    with worker(tmp_path) as mine, conditions.memory_reclaim([mine], root=tmp_path):
        group = tmp_path / f"edgewise-{mine.process}"
        assert (group / "cgroup.procs").read_text() == str(mine.process)
        assert 0 < int((group / "memory.high").read_text()) < psutil.Process(mine.process).memory_info().rss
    assert (tmp_path / "cgroup.procs").read_text() == str(mine.process)


def examined(folder: Path, monkeypatch: pytest.MonkeyPatch, *, variant: bytes | None = None) -> Section:
    """The whole suite on a small model and a variant of it, with streams of some frames only."""
    monkeypatch.setattr(streaming, "PLANS", dict.fromkeys(Depth, WHOLE))
    models = [folder / "fp32.onnx", folder / "variant.onnx"]
    models[0].write_bytes(serialised(small()))
    models[1].write_bytes(serialised(small()) if variant is None else variant)
    logits = np.eye(3)
    given = subject(logits, logits, [0, 1, 2])
    return streaming.streams(
        msgspec.structs.replace(
            given,
            test=Arrays(FEEDS),
            reference_path=models[0],
            variant_path=models[1],
            fps=200.0,
            budget=Budget(latency_p99_ms=1e6),
        ),
        Silent(),
    )


def test_the_suite_finds_everything_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = examined(tmp_path, monkeypatch)
    found = {each.name.removeprefix("streams."): each for each in section.findings}
    assert found.keys() == {
        *("latency_p50", "latency_p99", "latency_p999", "deadline_misses", "memory_slope", "cold_start"),
        *("contention", "heat", "battery", "memory_reclaim", "governor", "memory_pressure"),
    }
    assert found["latency_p99"].limit == 1e6
    assert found["latency_p99"].grade is Grade.PASS
    assert found["memory_slope"].value is not None or found["memory_slope"].grade is Grade.UNKNOWN
    for name in ("contention", "heat", "battery"):
        assert found[name].value is not None
        assert found[name].reference is not None
    for each in found.values():
        assert each.grade is not Grade.UNAVAILABLE or each.detail
    (table,) = section.tables
    assert {row[0] for row in table.rows} >= {"soak", "contention", "heat", "battery"}
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert msgspec.json.decode(msgspec.json.encode(section), type=Section) == section


def test_a_variant_that_no_process_can_load_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = examined(tmp_path, monkeypatch, variant=b"nothing")
    (found,) = section.findings
    assert (found.name, found.grade) == ("streams.finished", Grade.FAIL)


def test_the_users_minutes_are_the_length_of_the_soak() -> None:
    given = subject(np.eye(2), np.eye(2), [0, 1])
    assert streaming.plan_of(given).soak < 10
    assert streaming.plan_of(msgspec.structs.replace(given, minutes=2.5)).soak == 150
