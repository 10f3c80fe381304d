"""The agreement suite: how the variant's answers stand beside fp32's on the same samples."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.verification import Finding, Grade, Section, Table
from edgewise.forge.progress import Progress
from edgewise.forge.verify.flips import directions, flip_findings, flips_of
from edgewise.forge.verify.pairs import are_numbers
from edgewise.forge.verify.scores import compare_scores, score_findings
from edgewise.forge.verify.subject import Subject

NAME = "agreement"


def agreement(subject: Subject, progress: Progress) -> Section:
    """Return scores, flips and distances of the variant beside fp32."""
    progress.start("agreement with fp32", None)
    flips = flips_of(subject)
    findings = (
        _finite(subject),
        *score_findings(subject, compare_scores(subject)),
        *flip_findings(subject, flips),
        _distance(subject),
    )
    tables: list[Table | None] = [directions(flips) if flips is not None else None]
    return Section(
        suite=NAME,
        title="Agreement with fp32",
        findings=findings,
        tables=tuple(each for each in tables if each is not None),
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
