"""The test samples that say most about what broke: those that fp32 was surest of, and the farthest ones."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.evidence import FlipEvidence
from edgewise.contracts.verification import Table
from edgewise.forge.verify.flips import Flips
from edgewise.forge.verify.subject import Subject

MOST = 24


def worst(subject: Subject, flips: Flips | None) -> tuple[FlipEvidence, ...]:
    """Return flips, those of the largest fp32 margin (else of the largest distance) first."""
    pairs, task = subject.pairs, subject.task
    if flips is None or not flips.is_per_sample:
        return ()
    at = np.flatnonzero(flips.flipped)
    order = sorted(at.tolist(), key=lambda each: (-(pairs.reference_margins[each] or 0.0), -pairs.divergences[each]))
    return tuple(
        FlipEvidence(
            index=each,
            reference_answer=task.answer(pairs.reference_predictions[each]),
            variant_answer=task.answer(pairs.variant_predictions[each]),
            target=_target(pairs.targets[each]),
            margin=pairs.reference_margins[each],
        )
        for each in order[:MOST]
    )


def exemplar_table(subject: Subject, found: tuple[FlipEvidence, ...]) -> Table | None:
    """Return the flips as a table; without any, the samples that are farthest from fp32, if any is far at all."""
    if found:
        return Table(
            title="Worst exemplars",
            columns=("sample", "fp32", "variant", "label", "fp32 margin", "distance"),
            rows=tuple(
                (e.index, e.reference_answer, e.variant_answer, e.target, e.margin, _far(subject, e.index))
                for e in found
            ),
            note="Flips; those of which fp32 was surest come first.",
        )
    far = np.array(subject.pairs.divergences)
    if not np.any(far):
        return None
    order = np.argsort(-np.nan_to_num(far, nan=np.inf), kind="stable")[:10]
    return Table(
        title="Farthest from fp32",
        columns=("sample", "distance"),
        rows=tuple((int(each), _far(subject, int(each))) for each in order),
    )


def _far(subject: Subject, index: int) -> float | None:
    distance = float(subject.pairs.divergences[index])
    return distance if np.isfinite(distance) else None


def _target(target: object) -> str | None:
    """Return a label as text; boxes and the like are too long to be shown."""
    return str(target) if isinstance(target, (int, float, str, np.integer)) else None
