"""`edgewise data check`: whether this data can carry a calibration and its proof."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edgewise.contracts.curation import DataCheck
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Finding, Grade
from edgewise.errors import DataError
from edgewise.forge.curate.drift import constant_inputs, drift
from edgewise.forge.curate.duplicates import duplicates
from edgewise.forge.curate.labels import class_labels, disputed_labels
from edgewise.forge.curate.profile import Profile, profile
from edgewise.forge.data.labels import Labelled, has_integer_labels
from edgewise.forge.data.open import CALIBRATE, SELECT, TEST, open_split
from edgewise.forge.data.rows import open_npz
from edgewise.forge.data.split import at_most
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.progress import Progress
from edgewise.forge.targets import load_target
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.tasks.classification import Classification
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Session

MOST_SAMPLES = 2048
"""Samples of a split that are looked at and run, a seeded part of them."""
_SHOWN = 8


def check(
    folder: str, *, model: str, config: TaskConfig, base: Path, seed: int, threads: int, progress: Progress
) -> DataCheck:
    """Look at every split of a folder. A split that cannot be used is a finding that fails, not an error.

    Raises ModelError where the model cannot be used, TaskError where the task does not go with it.
    """
    execute = runtime(load_target("local").runtimes[0])
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="edgewise-check-") as work:
        progress.start("import", None)
        session = execute.load(import_model(model, base=base, inputs={}, work=Path(work)).original, threads=threads)
        splits = {split: _opened(split, config, session, base, findings) for split in (CALIBRATE, SELECT, TEST)}
        opened = {split: each for split, each in splits.items() if each is not None}
        task = _task(config, session, opened, base)
        profiles: dict[str, Profile] = {}
        for split, each in opened.items():
            if isinstance(task, Classification):
                findings += class_labels(split, each.targets or (), classes=task.classes)
            profiles[split] = _profiled(split, each, session, task, seed, progress)
    progress.start("compare", None)
    findings += duplicates(list(profiles.values()))
    for seen in profiles.values():
        findings += [*constant_inputs(seen), *disputed_labels(seen)]
    for split in (SELECT, TEST):
        if CALIBRATE in profiles and split in profiles:
            findings += drift(profiles[CALIBRATE], profiles[split])
    if TEST not in opened and config.test is None:
        findings.append(_no_test())
    return DataCheck(
        folder=folder,
        model=model,
        task=task.kind,
        splits={split: len(each) for split, each in opened.items()},
        findings=tuple(findings),
        holds=all(each.grade is not Grade.FAIL for each in findings),
    )


def _opened(split: str, config: TaskConfig, session: Session, base: Path, findings: list[Finding]) -> Labelled | None:
    path = {CALIBRATE: config.calibrate, SELECT: config.select, TEST: config.test}[split]
    try:
        if path is not None and path.endswith(".npz"):
            bad = _not_finite(split, base / path)
            findings.append(bad)
            if bad.grade is Grade.FAIL:
                return None
        found = open_split(split, config=config, inputs=session.inputs, folder=base)
    except DataError as error:
        findings.append(
            Finding(
                name="data.readable",
                subject=split,
                grade=Grade.FAIL,
                detail=error.found,
                advice="; ".join(filter(None, (error.required, error.next_step))),
            )
        )
        return None
    if found is not None:
        findings += [
            Finding(name="data.readable", subject=split, grade=Grade.FLAG, detail=each) for each in found.warnings
        ]
        if not found.warnings:
            findings.append(
                Finding(
                    name="data.readable", subject=split, grade=Grade.PASS, detail=f"{len(found)} samples fit the model"
                )
            )
    return found


def _not_finite(split: str, path: Path) -> Finding:
    """Return which rows of an npz's float arrays hold NaN or infinity, read chunk by chunk."""
    arrays, scratch = open_npz(path)
    bad: list[str] = []
    for name, rows in arrays.items():
        if np.dtype(rows.dtype).kind != "f":
            continue
        for start in range(0, len(rows), rows.rows_per_chunk):
            chunk = rows.read(start, min(rows.rows_per_chunk, len(rows) - start)).reshape(-1, max(1, _row(rows.shape)))
            bad += [f"{name}[{start + at}]" for at in np.flatnonzero(~np.isfinite(chunk).all(axis=1))]
    if scratch is not None:
        scratch.close()
    return Finding(
        name="data.not_finite",
        subject=split,
        grade=Grade.FAIL if bad else Grade.PASS,
        value=float(len(bad)),
        limit=0.0,
        detail=f"{len(bad)} rows of {path.name} hold NaN or infinity"
        + (f": {', '.join(bad[:_SHOWN])}{', ...' if len(bad) > _SHOWN else ''}" if bad else ""),
        advice="remove or repair these samples; the split was not looked at any further" if bad else "",
    )


def _row(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:])) if shape else 1


def _task(config: TaskConfig, session: Session, opened: dict[str, Labelled], base: Path) -> Task:
    labelled = next((each for each in reversed(opened.values()) if each.targets is not None), None)
    return choose_task(
        config.kind,
        config=config,
        outputs=session.outputs,
        inputs=session.inputs,
        has_labels=labelled is not None,
        folder=base,
        integer_labels=labelled is not None and has_integer_labels(labelled),
    )


def _profiled(split: str, dataset: Labelled, session: Session, task: Task, seed: int, progress: Progress) -> Profile:
    indices = at_most(tuple(range(len(dataset))), MOST_SAMPLES, seed=seed, group=1)
    progress.start(f"look at {split}", len(indices))
    return profile(split, dataset, indices, session=session, task=task, progress=progress.advance)


def _no_test() -> Finding:
    return Finding(
        name="data.readable",
        subject=TEST,
        grade=Grade.UNAVAILABLE,
        detail="there is no test split: leakage and drift were not looked for",
        advice="add test.npz",
    )
