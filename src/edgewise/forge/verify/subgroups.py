"""Whether a variant that is fine on average fails some class, or some subgroup that the user named."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Finding, Grade, Table
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.flips import SHARE, Flips
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.contingency import chi_squared, fisher_greater, holm, permutation_p, stratified_excess
from edgewise.numerics.statistics import mcnemar, share_interval

LEVEL = 0.01
"""Chance of a false alarm over all groups together (Holm)."""
LOSS = 0.05
"""Share of a group's answers that must be lost on balance before the group fails."""
_STRATA = 10
_FEWEST_EXPECTED = 5
_TIMES = 2.0
_Bools = NDArray[np.bool_]


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group's counts."""

    name: str
    samples: int
    flips: int
    others: int
    """Flips outside the group."""
    lost: int
    won: int
    p_harm: float
    p_flips: float


def subgroup_findings(subject: Subject, flips: Flips) -> tuple[tuple[Finding, ...], tuple[Table, ...]]:
    """Return the judgement of the user's subgroups; nothing where there are none."""
    if subject.groups is None:
        return (), ()
    if not flips.is_per_sample:
        finding = Finding(
            name="agreement.subgroups",
            grade=Grade.UNAVAILABLE,
            detail=f"the task {subject.task.kind!r} has more than one answer per sample",
        )
        return (finding,), ()
    return _examined(subject, flips, subject.groups, kind="subgroup", name="agreement.subgroups")


def class_findings(subject: Subject, flips: Flips) -> tuple[tuple[Finding, ...], tuple[Table, ...]]:
    """Return the judgement of each class: of its samples, and of the answers that name it; nothing for other tasks."""
    task, pairs = subject.task, subject.pairs
    if not isinstance(task, Classification):
        return (), ()
    before = np.array([int(each[0]) for each in pairs.reference_predictions])
    after = np.array([int(each[0]) for each in pairs.variant_predictions])
    truth = np.array([int(b) if t is None else int(t) for b, t in zip(before, pairs.targets, strict=True)])
    names = [_name(task, each) for each in truth]
    findings, tables = _examined(subject, flips, names, kind="class", name="agreement.classes")
    answered = _answers(task, before, after)
    worst = [each for each in answered if each.grade is not Grade.PASS]
    if worst and findings[0].grade is Grade.PASS:
        findings = findings[1:]
    return (*findings, *worst), tables


def _answers(task: Classification, before: NDArray[np.int64], after: NDArray[np.int64]) -> list[Finding]:
    """Return, per class, whether answers moved to it or away from it on balance: a class's weights that are off."""
    classes = [int(each) for each in np.union1d(before, after)]
    away = [int(((before == each) & (after != each)).sum()) for each in classes]
    to = [int(((after == each) & (before != each)).sum()) for each in classes]
    adjusted = holm([mcnemar(a, b) for a, b in zip(away, to, strict=True)])
    found = []
    for each, a, b, p in zip(classes, away, to, adjusted, strict=True):
        size = max(int((before == each).sum()), int((after == each).sum()), 1)
        share = abs(b - a) / size
        if p >= LEVEL:
            continue
        found.append(
            Finding(
                name="agreement.classes",
                subject=_name(task, each),
                grade=Grade.FAIL if share > LOSS else Grade.FLAG,
                detail=f"{b} answers moved to this class and {a} away from it (corrected p = {p:.2g})",
                value=share,
                reference=0.0,
                limit=LOSS,
                advice="look at the last layer's row of this class: its scale, bias and rounding",
            )
        )
    return found


def _examined(
    subject: Subject, flips: Flips, names: Sequence[str], *, kind: str, name: str
) -> tuple[tuple[Finding, ...], tuple[Table, ...]]:
    labels, number = np.unique(np.array(names), return_inverse=True)
    strata = _strata(subject)
    groups = [_counted(flips, str(label), number == at, strata) for at, label in enumerate(labels)]
    harm, excess = holm([each.p_harm for each in groups]), holm([each.p_flips for each in groups])
    total, whole = int(flips.flipped.sum()), flips.flipped.size
    judged = [
        _judged(each, p, q, flips, kind=kind, name=name, whole=whole)
        for each, p, q in zip(groups, harm, excess, strict=True)
    ]
    bad = [each for each in judged if each is not None]
    p, words = _overall(subject, flips.flipped, number)
    overall = Finding(
        name=name,
        grade=Grade.NOTED if bad else Grade.PASS,
        detail=f"{total} flips over {len(groups)} {kind}{'es' if kind == 'class' else 's'}: they lie "
        f"{'unevenly' if p < LEVEL else 'no more unevenly than by chance'} ({words} p = {p:.2g})"
        + ("" if bad else f"; no {kind} is harmed"),
        value=p,
    )
    rows = tuple(
        (
            each.name,
            each.samples,
            each.flips,
            round(100 * each.flips / each.samples, 3),
            each.lost if flips.right is not None else None,
            each.won if flips.right is not None else None,
            round(p, 5) if flips.right is not None else None,
            round(q, 5),
        )
        for each, p, q in sorted(zip(groups, harm, excess, strict=True), key=lambda row: -row[0].flips / row[0].samples)
    )
    table = Table(
        title=f"Flips by {kind}",
        columns=(
            kind,
            "samples",
            "flips",
            "share (%)",
            "right to wrong",
            "wrong to right",
            "p of harm",
            "p of more flips",
        ),
        rows=rows,
        note="Harm: exact McNemar test. More flips: than fp32's margins explain (Mantel-Haenszel), or, where fewer "
        "than 5 are expected, than outside (Fisher). Both corrected for the number of rows (Holm).",
    )
    return (overall, *bad), (table,)


def _counted(flips: Flips, name: str, mine: _Bools, strata: NDArray[np.intp]) -> _Group:
    hits, size = int((flips.flipped & mine).sum()), int(mine.sum())
    others, rest = int((flips.flipped & ~mine).sum()), int((~mine).sum())
    lost = int((flips.lost & mine).sum()) if flips.right is not None else 0
    won = int((flips.won & mine).sum()) if flips.right is not None else 0
    expected, z = stratified_excess(flips.flipped, mine, strata)
    p_flips = fisher_greater(hits, size, others, rest) if expected < _FEWEST_EXPECTED else 1 - NormalDist().cdf(z)
    return _Group(
        name=name,
        samples=size,
        flips=hits,
        others=others,
        lost=lost,
        won=won,
        p_harm=mcnemar(lost, won) if lost > won else 1.0,
        p_flips=p_flips,
    )


def _judged(
    group: _Group, p_harm: float, p_flips: float, flips: Flips, *, kind: str, name: str, whole: int
) -> Finding | None:
    """Return what is wrong with a group, or None. With labels harm decides, without them the flips alone."""
    share, loss = group.flips / group.samples, (group.lost - group.won) / group.samples
    rest = whole - group.samples
    elsewhere = group.others / rest if rest else 0.0
    if flips.right is not None and p_harm < LEVEL:
        return Finding(
            name=name,
            subject=group.name,
            grade=Grade.FAIL if loss > LOSS else Grade.FLAG,
            detail=f"of {group.samples} samples {group.lost} went from right to wrong and {group.won} back: "
            f"a loss of {loss:.1%} (corrected p = {p_harm:.2g})",
            value=loss,
            reference=0.0,
            limit=LOSS,
            advice=f"add calibration samples of this {kind}, and keep the regions that it needs in a wider format",
        )
    if p_flips >= LEVEL or share < _TIMES * elsewhere:
        return None
    surely = share_interval(group.flips, group.samples).low > SHARE
    return Finding(
        name=name,
        subject=group.name,
        grade=Grade.FAIL if flips.right is None and surely else Grade.FLAG,
        detail=f"{share:.2%} of its {group.samples} answers differ, {elsewhere:.2%} elsewhere: more than fp32's "
        f"margins explain (corrected p = {p_flips:.2g})",
        value=share,
        reference=elsewhere,
        limit=SHARE,
        advice=f"add calibration samples of this {kind}",
    )


def _overall(subject: Subject, flipped: _Bools, number: NDArray[np.intp]) -> tuple[float, str]:
    table = np.stack([np.bincount(number[flipped], minlength=number.max() + 1), np.bincount(number[~flipped],
        minlength=number.max() + 1)])  # fmt: skip
    found = chi_squared(table)
    if found.least >= _FEWEST_EXPECTED or found.freedom == 0:
        return found.p, "chi-squared"
    return permutation_p(flipped, number, generator=np.random.default_rng((subject.seed, 1))), "permutation"


def _strata(subject: Subject) -> NDArray[np.intp]:
    """Return per sample which tenth of fp32's margins it is in; one stratum where there are no margins."""
    margins = subject.pairs.reference_margins
    if any(each is None for each in margins):
        return np.zeros(len(margins), np.intp)
    sure = np.array(margins, np.float64)
    edges = np.quantile(sure, np.linspace(0, 1, _STRATA + 1)[1:-1])
    return np.searchsorted(edges, sure)


def _name(task: Classification, number: int) -> str:
    return task.names[number] if 0 <= number < len(task.names) else str(number)
