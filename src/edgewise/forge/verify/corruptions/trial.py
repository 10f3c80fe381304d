"""Run both models under every condition: what each loses, per unit of the test data."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Feeds, Outputs
from edgewise.forge.verify.corruptions.compare import Values, qualities, unit_size
from edgewise.forge.verify.corruptions.modality import View
from edgewise.forge.verify.pairs import are_numbers
from edgewise.forge.verify.subject import Subject

NUMBER = 5
"""Of this suite, for its random numbers."""
_LADDER = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of units: few steps, so that a slightly busier machine looks at the same samples."""

Case = tuple[str, int]
"""Condition and severity."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One model under one case."""

    loss: Values
    """Per unit: quality on the clean input minus quality on the corrupted one; nan where there is no label."""
    broken: int
    """Samples whose outputs are not numbers."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Both models under one case, with flips against each other: `[samples]`, None without a top answer."""

    reference: Side
    variant: Side
    flips: Values | None


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """All cases on the same samples."""

    cases: dict[Case, Trial]
    clean_flips: Values | None
    samples: int
    measure: str
    """What is lost: the task's metric, or, without labels, closeness to the model's own clean output."""


def run_trials(subject: Subject, view: View, cases: Sequence[Case], progress: Progress) -> Trials:
    """Run both models on as many units as the time allows, each under all cases."""
    at = _chosen(subject, view, cases)
    task, pairs = subject.task, subject.pairs
    targets = [pairs.targets[index] for index in at]
    said: dict[Case, tuple[list[Any], list[Any]]] = {case: ([], []) for case in cases}
    moved: dict[Case, tuple[list[float], list[float]]] = {case: ([], []) for case in cases}
    broken = {case: [0, 0] for case in cases}
    progress.start("corruptions", len(at))
    for done, index in enumerate(at):
        feeds = subject.test[index].feeds
        clean = subject.run_both(feeds)
        for case in cases:
            changed = _changed(subject, view, case, index, feeds)
            for side, outputs in enumerate(subject.run_both(changed)):
                said[case][side].append(task.predict(outputs, changed))
                moved[case][side].append(_distance(subject, clean[side], outputs))
                broken[case][side] += not are_numbers(outputs)
        progress.advance(done + 1)
    before = [[predictions[index] for index in at] for predictions in (pairs.reference_predictions,
                                                                       pairs.variant_predictions)]  # fmt: skip
    clean_qualities = [_qualities(subject, predictions, targets) for predictions in before]
    found = {}
    for case in cases:
        sides = []
        for side in (0, 1):
            now = None if clean_qualities[side] is None else _qualities(subject, said[case][side], targets)
            base = clean_qualities[side]
            loss = np.array(moved[case][side]) if now is None or base is None else base - now
            sides.append(Side(loss=loss, broken=broken[case][side]))
        if sides[0].loss.shape != sides[1].loss.shape:
            sides = [Side(loss=np.array(moved[case][side]), broken=broken[case][side]) for side in (0, 1)]
        flips = task.flips(said[case][0], said[case][1])
        found[case] = Trial(reference=sides[0], variant=sides[1], flips=_floats(flips))
    labelled = clean_qualities[0] is not None
    return Trials(
        cases=found,
        clean_flips=_floats(task.flips(before[0], before[1])),
        samples=len(at),
        measure=task.metric if labelled else "distance to its own clean output (there are no labels)",
    )


def _chosen(subject: Subject, view: View, cases: Sequence[Case]) -> tuple[int, ...]:
    """Return the samples to look at: seeded, whole units, as many as fit into the subject's seconds."""
    size = unit_size(subject.pairs.targets)
    units = len(subject.test) // size
    each = _seconds_per_sample(subject, view, cases) * size
    affordable = int(subject.seconds / max(each, 1e-6))
    count = min(max((step for step in _LADDER if step <= affordable), default=_LADDER[0]), units)
    drawn = np.sort(np.random.default_rng((subject.seed, NUMBER)).choice(units, count, replace=False))
    return tuple(int(unit) * size + offset for unit in drawn for offset in range(size))


def _seconds_per_sample(subject: Subject, view: View, cases: Sequence[Case]) -> float:
    """Return the time of one sample under all cases, from one severity of each condition."""
    feeds = subject.test[0].feeds
    subject.run_both(feeds)  # the first run allocates
    total = 0.0
    for name in dict.fromkeys(case[0] for case in cases):
        severities = [severity for each, severity in cases if each == name]
        taken = []
        for _ in range(2):  # the first time also loads libraries
            begin = time.process_time()
            subject.run_both(_changed(subject, view, (name, severities[len(severities) // 2]), 0, feeds))
            taken.append(time.process_time() - begin)
        total += min(taken) * len(severities)
    return total


def _changed(subject: Subject, view: View, case: Case, index: int, feeds: Feeds) -> Feeds:
    name, severity = case
    draw = np.random.default_rng((subject.seed, NUMBER, zlib.crc32(name.encode()), severity, index))
    return view.apply(name, severity, index, feeds, draw)


def _qualities(subject: Subject, predictions: Sequence[Any], targets: Sequence[Any]) -> Values | None:
    try:
        return qualities(subject.task, predictions, targets)
    except EdgewiseError:  # labels that only go with the clean input, such as its own tokens
        return None


def _distance(subject: Subject, clean: Outputs, corrupted: Outputs) -> float:
    try:
        far = subject.task.divergence(clean, corrupted)
    except (ValueError, IndexError):  # another number of rows
        far = float("inf")
    return far if np.isfinite(far) else 1e3


def _floats(flips: Any) -> Values | None:
    return None if flips is None or not flips.size else np.asarray(flips, np.float64)
