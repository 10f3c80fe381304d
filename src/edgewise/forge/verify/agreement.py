"""The agreement suite: how the variant's answers stand beside fp32's on the same samples."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.verification import Chart, Finding, Grade, Section, Table
from edgewise.forge.progress import Progress
from edgewise.forge.verify.beliefs import beliefs_of
from edgewise.forge.verify.calibration import calibration_findings
from edgewise.forge.verify.confidence import confidence_charts, confidence_findings, disagreement_by_margin
from edgewise.forge.verify.exemplars import exemplar_table, worst
from edgewise.forge.verify.flips import directions, flip_findings, flips_of
from edgewise.forge.verify.pairs import are_numbers
from edgewise.forge.verify.scores import compare_scores, score_findings
from edgewise.forge.verify.subgroups import class_findings, subgroup_findings
from edgewise.forge.verify.subject import Subject

NAME = "agreement"


def agreement(subject: Subject, progress: Progress) -> Section:
    """Return scores, flips, classes, subgroups, confidence and distances of the variant beside fp32."""
    progress.start("agreement with fp32", 5)
    flips = flips_of(subject)
    findings = [_finite(subject), *score_findings(subject, compare_scores(subject)), *flip_findings(subject, flips)]
    tables: list[Table | None] = []
    charts: list[Chart] = []
    progress.advance(1)
    if flips is not None:
        tables.append(directions(flips))
        for found, listed in (class_findings(subject, flips), subgroup_findings(subject, flips)):
            findings += found
            tables += listed
        if (by_margin := disagreement_by_margin(subject, flips)) is not None:
            charts.append(by_margin[0])
            tables.append(by_margin[1])
    progress.advance(2)
    beliefs = beliefs_of(subject)
    if beliefs is not None:
        findings += confidence_findings(subject, beliefs)
        progress.advance(3)
        findings += calibration_findings(subject, beliefs)
        charts += confidence_charts(beliefs)
    progress.advance(4)
    findings.append(_distance(subject))
    tables.append(exemplar_table(subject, worst(subject, flips)))
    progress.advance(5)
    return Section(
        suite=NAME,
        title="Agreement with fp32",
        findings=tuple(findings),
        tables=tuple(each for each in tables if each is not None),
        charts=tuple(charts),
        seed=subject.seed,
    )


def _finite(subject: Subject) -> Finding:
    pairs = subject.pairs
    broken = sum(not are_numbers(each) for each in pairs.variant_outputs)
    far = sum(not np.isfinite(each) for each in pairs.divergences)
    bad = max(broken, far)
    detail = (
        f"{bad} of {len(pairs.divergences)} samples have outputs that are no finite numbers, where fp32 has"
        if bad
        else "every output is a number"
    )
    return Finding(
        name="agreement.finite",
        grade=Grade.FAIL if bad else Grade.PASS,
        detail=detail,
        value=float(bad),
        reference=0.0,
        advice="look for an overflow: float16 regions, or a scale of 0" if bad else "",
    )


def _distance(subject: Subject) -> Finding:
    far = np.array(subject.pairs.divergences)
    known = far[np.isfinite(far)]
    mean = float(known.mean()) if known.size else None
    return Finding(
        name="agreement.divergence",
        grade=Grade.NOTED,
        detail="the task's own distance to fp32 per sample"
        + ("" if mean is None else f": mean {mean:.4g}, largest {float(known.max()):.4g}"),
        value=mean,
        reference=0.0,
    )
