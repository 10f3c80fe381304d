"""Verify one variant: open it beside fp32, run the suites, conclude."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise.contracts.budget import judge
from edgewise.contracts.evidence import Figures
from edgewise.contracts.verification import (
    Finding,
    Grade,
    ScoreCutoff,
    Section,
    VariantCalibration,
    Verification,
)
from edgewise.errors import EdgewiseError
from edgewise.forge.cache import write_atomically
from edgewise.forge.measure.environment import environment
from edgewise.forge.progress import Progress, Silent
from edgewise.forge.report.exemplars import MOST as PICTURES
from edgewise.forge.report.exemplars import picture
from edgewise.forge.report.pictures import Picture
from edgewise.forge.tasks.base import Outputs
from edgewise.forge.verify.baseline import DOCUMENT
from edgewise.forge.verify.calibration import CONFORMAL, TEMPERATURE
from edgewise.forge.verify.cost import cost_section, measure_cost
from edgewise.forge.verify.exemplars import worst
from edgewise.forge.verify.flips import flips_of
from edgewise.forge.verify.given import Given
from edgewise.forge.verify.open import Asked, open_subject
from edgewise.forge.verify.subject import Subject, Suite
from edgewise.forge.verify.suites import SUITES
from edgewise.forge.verify.verdict import broken_off, changes, concluded
from edgewise.numerics.distance import SqnrAccumulator

CUTOFF = "ood.cutoff"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The document, and the inputs of the worst exemplars for its page."""

    document: Verification
    pictures: tuple[Picture, ...]


def verify(
    given: Given,
    asked: Asked,
    *,
    work: Path,
    baseline: tuple[str, Verification] | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Return everything that is found about a variant, and the verdict.

    `work` receives what is written on the way. `baseline` is an earlier verification and what to call it. Raises
    EdgewiseError where something given cannot be used; a suite that fails becomes a finding.
    """
    told = progress or Silent()
    watch = _Watch()
    opened = open_subject(given, asked, work=work, progress=told)
    subject = opened.subject
    watch.lap("open")
    costs = measure_cost(subject, power=given.power, progress=told)
    accuracies = accuracies_of(subject)
    reference, variant = (
        Figures(path=str(path), runtime=subject.runtime.name, **accuracy, **cost)
        for path, accuracy, cost in zip((given.reference.path, given.variant), accuracies, costs, strict=True)
    )
    sections = [cost_section(reference, variant)]
    watch.lap("cost")
    for name, suite, depths in SUITES:
        if asked.depth in depths:
            section = _run(name, suite, subject, told)
            sections.append(msgspec.structs.replace(section, seconds=watch.lap(name)))
    limits = judge(subject.budget, variant, reference)
    watch.total()
    document = Verification(
        verdict=concluded(limits, sections),
        variant=str(given.variant),
        variant_digest=opened.variant_digest,
        reference=given.reference.path,
        reference_digest=opened.reference_digest,
        runtime=subject.runtime.name,
        runtime_version=subject.runtime.version(),
        task=subject.task.kind,
        metric=subject.task.metric,
        suite=asked.depth,
        seed=asked.seed,
        samples=len(subject.test),
        data_digest=subject.test.digest(),
        figures=variant,
        reference_figures=reference,
        limits=limits,
        sections=tuple(sections),
        calibration=calibration_of([each for section in sections for each in section.findings]),
        baseline=baseline[0] if baseline is not None else None,
        changes=changes(baseline[1], sections) if baseline is not None else (),
        seconds=watch.seconds,
        warnings=tuple(filter(None, (broken_off(sections), *opened.warnings))),
        environment=environment(threads=subject.threads, seed=asked.seed),
    )
    flips, far = worst(subject, flips_of(subject))[:PICTURES], subject.pairs.divergences
    pictures = tuple(picture(subject.test, each, distance=far[each.index]) for each in flips)
    return Verified(document=document, pictures=pictures)


def write_document(found: Verification, folder: Path) -> None:
    """Write `verification.json`, whole or not at all. Raises OutputError where the disk refuses."""
    write_atomically(folder / DOCUMENT, msgspec.json.format(msgspec.json.encode(found), indent=1))


class _Watch:
    """Wall time of each part, in seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> float:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
        return self.seconds[name]

    def total(self) -> None:
        self.seconds["total"] = round(time.monotonic() - self._started, 3)


def _run(name: str, suite: Suite, subject: Subject, progress: Progress) -> Section:
    """Run a suite; one that breaks off says so in the document instead of taking the others with it."""
    try:
        return suite(subject, progress)
    except EdgewiseError as error:
        finding = Finding(
            name=f"{name}.finished",
            grade=Grade.UNKNOWN,
            detail=f"the suite broke off, so that nothing is known of what it looks for: {error}".replace("\n", "; "),
            advice="remove the cause and verify again",
        )
        return Section(suite=name, title=name.capitalize(), findings=(finding,), finished=False)


def accuracies_of(subject: Subject) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fp32's and the variant's accuracy on the test split under the names that Figures gives them."""
    task, pairs = subject.task, subject.pairs
    found = []
    for predictions in (pairs.reference_predictions, pairs.variant_predictions):
        score = task.score(predictions, pairs.targets)
        flips = task.flips(pairs.reference_predictions, predictions)
        found.append(
            {
                "score": score.value if score else None,
                "metrics": score.metrics if score else {},
                "higher_is_better": task.higher_is_better,
                "flip_rate": float(np.mean(flips)) if flips is not None and flips.size else None,
            }
        )
    far = np.array(pairs.divergences)
    sqnr = _sqnr_db(pairs.reference_outputs, pairs.variant_outputs)
    found[0] |= {"divergence": 0.0}
    found[1] |= {"divergence": float(far.mean()) if np.isfinite(far).all() else None, "sqnr_db": sqnr}
    return found[0], found[1]


def _sqnr_db(reference: Sequence[Outputs], variant: Sequence[Outputs]) -> float | None:
    """Return the signal-to-noise ratio of all float outputs; None where they are equal or cannot be compared."""
    total = SqnrAccumulator()
    for expected, found in zip(reference, variant, strict=True):
        for want, have in zip(expected, found, strict=True):
            if want.shape != have.shape:
                return None
            if want.dtype.kind == "f" and np.isfinite(want).all():
                total.update(want, have)
    value = float(total.db)
    return value if np.isfinite(value) else None


def calibration_of(findings: Sequence[Finding]) -> VariantCalibration:
    """Return what the suites fitted for this variant; it travels in findings of agreed names (see `suites`)."""
    known = [(each, each.value) for each in findings if each.value is not None]
    return VariantCalibration(
        temperature=next((value for each, value in known if each.name == TEMPERATURE), None),
        conformal={each.subject: value for each, value in known if each.name == CONFORMAL},
        cutoffs=tuple(
            ScoreCutoff(score=each.subject, cutoff=value, keep=0.95 if each.limit is None else each.limit)
            for each, value in known
            if each.name == CUTOFF
        ),
    )
