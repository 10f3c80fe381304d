"""The streams suite: a soak, cold starts, and the same stream under worse conditions, variant beside fp32.

Models run in processes of their own, so that this one, with its data and its sessions, is not measured. Both exist
at once and take turns; one that waits does nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.units import mib
from edgewise.contracts.verification import Cell, Chart, Depth, Finding, Grade, Section, Table
from edgewise.errors import EdgewiseError, ExecutionError
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Feeds
from edgewise.forge.verify.streams import conditions, judge
from edgewise.forge.verify.streams.conditions import Unimposable
from edgewise.forge.verify.streams.pace import Stream
from edgewise.forge.verify.streams.worker import Start, Worker
from edgewise.forge.verify.subject import Subject

NAME = "streams"
_FEEDS = 16
_MOST_FPS, _LOAD = 30.0, 0.5
"""Without --fps: thirty frames a second, or as many as keep fp32 busy half of the time."""
_FEWEST_FRAMES = 20
_TURN_SECONDS, _MOST_TURNS = 5.0, 24
_MORE_STARTS = 3
_FEWEST_SOAKED = 60
"""Frames of a soak: fewer say nothing about memory."""
_ROOM = (1.0, 1.1, 1.25, 1.5, 2.0)
"""Times the memory that fp32 holds once it runs: loading takes more, for a moment."""
_SLACK = 1.25
"""Of fp32's least memory: one and the same model is refused with what it ran on a moment before."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long each part lasts, in seconds."""

    soak: float
    reference: float
    """fp32's soak, in turns with the variant's."""
    condition: float
    """Each model under each condition, in `turns` turns."""
    turns: int
    starts: int
    """Cold starts of each model."""

    @property
    def soak_turns(self) -> int:
        """Both models take turns in a soak, so that what else the machine does falls on both."""
        return min(max(round(self.soak / _TURN_SECONDS), self.turns), _MOST_TURNS)


PLANS = {
    Depth.QUICK: Plan(soak=2.5, reference=1.0, condition=0.6, turns=3, starts=2),
    Depth.FULL: Plan(soak=40.0, reference=10.0, condition=4.0, turns=4, starts=5),
}

Condition = Callable[[Sequence[Worker]], AbstractContextManager[None]]
_CONDITIONS: tuple[tuple[str, str, Condition], ...] = (
    ("contention", "with every core busy with other work", conditions.contention),
    ("heat", f"running {conditions.HOT:.0%} of the time, as throttled by heat", conditions.heat),
    ("battery", f"running {conditions.LOW_BATTERY:.0%} of the time, as on a low battery", conditions.low_battery),
    ("memory_reclaim", f"allowed {conditions.PRESSED:.0%} of its memory", conditions.memory_reclaim),
    ("governor", "with all cores at their lowest clock", conditions.powersave),
)


def streams(subject: Subject, progress: Progress) -> Section:
    """Return how the variant stands as a stream. What cannot be imposed here is unavailable, with the reason."""
    plan = plan_of(subject)
    feeds = [subject.test[at].feeds for at in range(min(_FEEDS, len(subject.test)))]
    with tempfile.TemporaryDirectory(prefix="edgewise-streams-") as folder:
        try:
            return _Suite(subject, plan, feeds, Path(folder), progress).run()
        except ExecutionError as error:  # of the model, not of this machine
            finding = Finding(name="streams.finished", grade=Grade.FAIL, detail=str(error).replace("\n", "; "))
            return _section(subject, (finding,))


def plan_of(subject: Subject) -> Plan:
    """Return the plan of a depth, with the length of the soak that the user gave."""
    plan = PLANS[subject.depth]
    return plan if subject.minutes is None else msgspec.structs.replace(plan, soak=60 * subject.minutes)


def rate(service_ms: float, *, asked: float | None) -> float:
    """Return frames a second: what was asked for, or what fp32 can do at half load, at most 30."""
    return asked if asked is not None else min(_MOST_FPS, _LOAD * 1000 / max(service_ms, 1e-3))


class _Suite:
    """One run of the suite; its methods are its parts, in order."""

    def __init__(self, subject: Subject, plan: Plan, feeds: Sequence[Feeds], folder: Path, progress: Progress) -> None:
        self._subject, self._plan, self._feeds = subject, plan, feeds
        self._folder, self._progress = folder, progress
        self._rows: list[tuple[str, judge.Times, judge.Times]] = []

    def run(self) -> Section:
        subject, plan = self._subject, self._plan
        self._progress.start("cold starts", 2 * plan.starts)
        starts = self._starts(plan.starts - 1)
        with self._worker(subject.variant_path) as variant, self._worker(subject.reference_path) as fp32:
            warm = fp32.stream(fps=1000.0, seconds=_FEWEST_FRAMES / 1000)
            fps = rate(float(np.median(warm.service_ms)), asked=subject.fps)
            self._progress.start(f"soak at {fps:.3g} frames a second", None)
            soak, reference = self._soak(variant, fp32, fps)
            self._rows.append(("soak", judge.times_of(soak), judge.times_of(reference)))
            generator = np.random.default_rng((subject.seed, 6))
            findings = [
                *judge.soak_findings(soak, reference, budget=subject.budget, asked=subject.fps is not None),
                judge.memory_finding(soak, generator=generator),
                self._start([variant.start, *starts[0]], [fp32.start, *starts[1]]),
            ]
            for name, words, condition in _CONDITIONS:
                findings.append(self._under(name, words, condition, variant, fp32, fps=fps))
            needed = fp32.start.data_bytes
        findings.append(self._pressure(needed))
        return _section(subject, tuple(findings), tables=(self._table(),), charts=judge.charts(soak, reference))

    def _worker(self, model: Path, *, limit: int | None = None) -> Worker:
        return Worker(
            model,
            self._feeds,
            runtime=RuntimeName(self._subject.runtime.name),
            threads=self._subject.threads,
            folder=self._folder,
            data_limit_bytes=limit,
        )

    def _soak(self, variant: Worker, fp32: Worker, fps: float) -> tuple[list[Stream], list[Stream]]:
        """Return the variant's soak and fp32's, in turns; a variant that seems to be behind gets some more."""
        plan, turns = self._plan, self._plan.soak_turns
        mine: list[Stream] = []
        theirs: list[Stream] = []
        for _ in range(turns):
            theirs.append(fp32.stream(fps=fps, seconds=self._long_enough(plan.reference, fps) / turns))
            mine.append(variant.stream(fps=fps, seconds=max(plan.soak, _FEWEST_SOAKED / fps) / turns))
        if judge.is_behind(mine, theirs):
            self._take_turns(variant, fp32, mine, theirs, fps)
        return mine, theirs

    def _take_turns(self, variant: Worker, fp32: Worker, mine: list[Stream], theirs: list[Stream], fps: float) -> None:
        """Add the turns of one condition."""
        each = self._long_enough(self._plan.condition, fps) / self._plan.turns
        for _ in range(self._plan.turns):
            theirs.append(fp32.stream(fps=fps, seconds=each))
            mine.append(variant.stream(fps=fps, seconds=each))

    def _start(self, mine: list[Start], theirs: list[Start]) -> Finding:
        """Judge cold starts; one that looks slow is looked at again."""
        found = judge.start_finding(mine, theirs)
        if found.grade is Grade.PASS:
            return found
        more = self._starts(_MORE_STARTS)
        return judge.start_finding([*mine, *more[0]], [*theirs, *more[1]])

    def _starts(self, count: int) -> tuple[list[Start], list[Start]]:
        """Return cold starts of both models in turns; the workers of the soak are one more of each."""
        found: tuple[list[Start], list[Start]] = ([], [])
        for turn in range(count):
            for kept, path in zip(found, (self._subject.variant_path, self._subject.reference_path), strict=True):
                with self._worker(path) as worker:
                    kept.append(worker.start)
            self._progress.advance(2 * turn + 2)
        return found

    def _long_enough(self, seconds: float, fps: float) -> float:
        return max(seconds, _FEWEST_FRAMES / fps)

    def _under(
        self, name: str, words: str, condition: Condition, variant: Worker, fp32: Worker, *, fps: float
    ) -> Finding:
        self._progress.start(f"stream {words}", None)
        mine: list[Stream] = []
        theirs: list[Stream] = []
        try:
            with condition((variant, fp32)):
                self._take_turns(variant, fp32, mine, theirs, fps)
                if judge.is_behind(mine, theirs):
                    self._take_turns(variant, fp32, mine, theirs, fps)
        except Unimposable as error:
            return judge.unavailable(name, str(error))
        self._rows.append((name, judge.times_of(mine), judge.times_of(theirs)))
        return judge.condition_finding(name, words, mine, theirs, budget=self._subject.budget)

    def _pressure(self, needed: int) -> Finding:
        """Start and run the variant, in a fresh process, with the least private memory that lets fp32 do so."""
        self._progress.start("start under memory pressure", len(_ROOM))
        if not needed:
            return judge.unavailable("memory_pressure", "this system does not tell a process's private memory")
        limit, refused = needed, ""
        for tried, room in enumerate(_ROOM):
            limit = int(room * needed)
            taken, refused = self._pressed(self._subject.reference_path, limit)
            self._progress.advance(tried + 1)
            if not refused:
                taken, refused = self._pressed(self._subject.variant_path, int(_SLACK * limit))
                return judge.pressure_finding(mib(taken), mib(limit), slack=_SLACK, refused=refused)
        return judge.unavailable("memory_pressure", f"fp32 itself does not run with {mib(limit):.0f} MiB: {refused}")

    def _pressed(self, model: Path, limit: int) -> tuple[int, str]:
        """Return the private memory that a model takes under a limit, or why it does not run."""
        try:
            with self._worker(model, limit=limit) as worker:
                return worker.start.data_bytes, ""
        except EdgewiseError as error:
            return 0, error.found

    def _table(self) -> Table:
        columns = ("condition", "model", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "late", "late, worst window")
        rows = tuple(
            row
            for name, mine, theirs in self._rows
            for row in (_row(name, "variant", mine), _row(name, "fp32", theirs))
        )
        note = "from the moment a frame was due until it was done; late is later than the next frame was due"
        return Table(title="Streams", columns=columns, rows=rows, note=note)


def _row(name: str, model: str, times: judge.Times) -> tuple[Cell, ...]:
    latencies = (times.p50, times.p99, times.p999, times.max)
    return (name, model, *(judge.finite(value) for value in latencies), times.missed, times.worst_window)


def _section(
    subject: Subject,
    findings: tuple[Finding, ...],
    *,
    tables: tuple[Table, ...] = (),
    charts: tuple[Chart, ...] = (),
) -> Section:
    return Section(suite=NAME, title="Streams", findings=findings, tables=tables, charts=charts, seed=subject.seed)
