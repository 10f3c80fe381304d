"""Measures models on this device for a workstation: times in turns, kernels, memory."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import numpy as np

from edgewise import __version__
from edgewise.contracts.lab import FEEDS, LabAnswer, LabKernel, LabQuestion, LabTimes, Measure
from edgewise.errors import DataError, EdgewiseError
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Array, Session
from edgewise.runtimes.memory_child import Question, answer
from edgewise.runtimes.timing import Plan, busy_clock, interleave

_CPUINFO = Path("/proc/cpuinfo")


def measured(question: LabQuestion, folder: Path) -> LabAnswer:
    """Return what was found. Raises EdgewiseError where the one model, or the reference, cannot be run."""
    about = LabAnswer(
        processor=_processor(),
        versions=f"edgewise {__version__}, {question.runtime} {runtime(question.runtime).version()}",
    )
    if question.measure is Measure.ABOUT:
        return about
    if not question.models or not question.names:
        raise DataError(f"{len(question.models)} models and {len(question.names)} samples", required="one at least")
    match question.measure:
        case Measure.TIME:
            return _timed(question, folder, about)
        case Measure.PROFILE:
            kernels = runtime(question.runtime).profile(
                _model(folder, question.models[0]),
                tuple(_feeds(question, folder)),
                threads=question.threads,
                rounds=question.rounds,
            )
            return msgspec.structs.replace(
                about, kernels=tuple(LabKernel(**msgspec.structs.asdict(each)) for each in kernels)
            )
        case _:
            return _peak(question, folder, about)


def _timed(question: LabQuestion, folder: Path, about: LabAnswer) -> LabAnswer:
    sessions: dict[str, Session] = {}
    failures: dict[str, str] = {}
    for name in question.models:
        try:
            sessions[name] = runtime(question.runtime).load(_model(folder, name), threads=question.threads)
        except EdgewiseError as error:
            if name == question.models[0]:
                raise
            failures[name] = str(error).splitlines()[0]
    plan = Plan(
        rounds=question.rounds,
        least=question.least,
        budget_s=question.budget_s,
        precision=question.precision,
        seed=question.seed,
    )
    busy = busy_clock(question.runtime, threads=question.threads)
    times = interleave(sessions, _feeds(question, folder), plan=plan, busy=busy)
    found = {
        name: LabTimes(samples_ms=each.samples_ms, repeats=each.repeats, busy_ms=each.busy_ms, per_round=each.per_round)
        for name, each in times.items()
    }
    return msgspec.structs.replace(about, times=found, failures=failures)


def _peak(question: LabQuestion, folder: Path, about: LabAnswer) -> LabAnswer:
    found = answer(
        Question(
            runtime=question.runtime,
            model=str(_model(folder, question.models[0])),
            threads=question.threads,
            feeds=str(folder / FEEDS),
            names=question.names,
        )
    )
    if found.refusal:
        raise DataError(found.refusal)
    peak = max(found.load_peak_bytes, found.run_peak_bytes) - found.before_bytes
    return msgspec.structs.replace(about, peak_bytes=max(0, peak))


def _model(folder: Path, name: str) -> Path:
    return folder / f"{name}.onnx"


def _feeds(question: LabQuestion, folder: Path) -> list[dict[str, Array]]:
    """Return the samples. Raises DataError where there are not as many arrays as names."""
    with np.load(folder / FEEDS, allow_pickle=False) as arrays:
        values = [arrays[f"arr_{at}"] for at in range(len(arrays.files))]
    if len(values) != sum(map(len, question.names)):
        raise DataError(f"{len(values)} arrays for {sum(map(len, question.names))} inputs", required="as many")
    rest = iter(values)
    return [{name: next(rest) for name in names} for names in question.names]


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, "") or platform.processor() or platform.machine()
