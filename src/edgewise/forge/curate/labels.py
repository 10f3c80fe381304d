"""What is wrong with class labels: numbers that are no class, classes without samples, labels that fp32 disputes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.curate.profile import Profile

IMBALANCE = 10.0
"""The largest class over the smallest, from which a mean says little about the small ones."""
SUSPICIOUS = 0.05
"""Share of disputed labels from which more than single mistakes must be at work."""
_FEW_PER_CLASS = 2
_SHOWN = 8


def class_labels(name: str, targets: Sequence[Any], *, classes: int) -> list[Finding]:
    """Return what the labels of a split alone show."""
    known = [(at, each) for at, each in enumerate(targets) if each is not None]
    if not known:
        return [Finding(name="data.labels", subject=name, grade=Grade.NOTED, detail=f"{name} has no labels")]
    wrong = [(at, each) for at, each in known if not _is_class(each, classes)]
    right = np.array([each for _, each in known if _is_class(each, classes)], np.int64)
    counts = np.bincount(right, minlength=classes)
    found = [_out_of_range(name, wrong, len(known), classes)]
    if right.size >= _FEW_PER_CLASS * classes:  # with fewer samples a class is missing by chance
        found += [_missing(name, counts), _imbalance(name, counts)]
    return found


def disputed_labels(split: Profile) -> list[Finding]:
    """Return what fp32 says about the labels: single ones it is sure are wrong, or all of them moved.

    Confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021, section 3.1): a label i is disputed where fp32 gives
    another class j at least the probability that it gives j on average where j is the label.
    """
    if split.probabilities is None:
        return []
    classes = split.probabilities.shape[1]
    rows = [at for at, each in enumerate(split.targets) if each is not None and _is_class(each, classes)]
    if not rows:
        return []
    labels = np.array([split.targets[at] for at in rows], np.int64)
    p = split.probabilities[rows]
    return [_shift(split.name, labels, p), _disputed(split, np.array(rows), labels, p)]


def _disputed(split: Profile, rows: NDArray[np.int64], labels: NDArray[np.int64], p: NDArray[np.float64]) -> Finding:
    classes = p.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, weights=p[np.arange(len(labels)), labels], minlength=classes)
    usual = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    sure = np.where(p >= usual, p, 0.0)
    other = sure.argmax(axis=1)
    doubt = (sure.max(axis=1) > 0) & (other != labels)
    ranked = np.flatnonzero(doubt)[np.argsort(-p[doubt, other[doubt]], kind="stable")]
    first = ", ".join(
        f"{split.indices[rows[at]]}: {labels[at]}, fp32 says {other[at]} ({p[at, other[at]]:.2f})"
        for at in ranked[:_SHOWN]
    )
    share = float(doubt.mean())
    return Finding(
        name="data.suspicious_labels",
        subject=split.name,
        grade=Grade.FLAG if share > SUSPICIOUS else Grade.NOTED if doubt.any() else Grade.PASS,
        value=share,
        limit=SUSPICIOUS,
        detail=f"fp32 confidently disagrees with {doubt.sum()} of {len(labels)} labels of {split.name}"
        + (f" ({first})" if first else ""),
        advice="look at these first: the label or the model is wrong" if doubt.any() else "",
    )


def _shift(name: str, labels: NDArray[np.int64], p: NDArray[np.float64]) -> Finding:
    best = p.argmax(axis=1)
    hits = {step: float((best == labels + step).mean()) for step in (0, -1, 1)}
    step = max((-1, 1), key=hits.__getitem__)
    # Twice as many hits with moved labels is no accident once there are some.
    moved = len(labels) >= 10 and hits[step] > max(2 * hits[0], 3 / p.shape[1], 0.3)
    return Finding(
        name="data.label_shift",
        subject=name,
        grade=Grade.FAIL if moved else Grade.PASS,
        value=hits[0],
        detail=f"fp32 agrees with {hits[0]:.1%} of the labels of {name}"
        + (f", and with {hits[step]:.1%} of them moved by {step:+d}" if moved else ""),
        advice=f"the labels are off by one: add {step:+d}" if moved else "",
    )


def _out_of_range(name: str, wrong: Sequence[tuple[int, Any]], known: int, classes: int) -> Finding:
    first = ", ".join(f"{each!r} of sample {at}" for at, each in wrong[:_SHOWN])
    return Finding(
        name="data.label_range",
        subject=name,
        grade=Grade.FAIL if wrong else Grade.PASS,
        value=float(len(wrong)),
        limit=0.0,
        detail=f"{len(wrong)} of {known} labels of {name} are no class from 0 to {classes - 1}"
        + (f": {first}" if first else ""),
        advice="check that labels start at 0 and belong to this model" if wrong else "",
    )


def _missing(name: str, counts: NDArray[np.int64]) -> Finding:
    absent = np.flatnonzero(counts == 0)
    first = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
    return Finding(
        name="data.missing_class",
        subject=name,
        grade=Grade.FLAG if len(absent) else Grade.PASS,
        value=float(len(absent)),
        detail=f"{len(absent)} of {len(counts)} classes have no sample in {name}" + (f": {first}" if first else ""),
        advice="nothing is measured for them: add samples" if len(absent) else "",
    )


def _imbalance(name: str, counts: NDArray[np.int64]) -> Finding:
    present = counts[counts > 0]
    ratio = float(present.max() / present.min())
    return Finding(
        name="data.imbalance",
        subject=name,
        grade=Grade.FLAG if ratio > IMBALANCE else Grade.PASS,
        value=ratio,
        limit=IMBALANCE,
        detail=f"the largest class of {name} has {present.max()} samples, the smallest {present.min()}",
        advice="a mean over samples hides the small classes: look at figures by class" if ratio > IMBALANCE else "",
    )


def _is_class(value: Any, classes: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < classes
