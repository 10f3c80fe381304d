"""Flips: answers that differ between fp32 and the variant, which way they went, and how many are too many."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Finding, Grade, Table
from edgewise.forge.verify.scores import correct
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.statistics import share_interval

SHARE = 0.05
"""Share of flips that fails a variant where the budget sets no `flip_rate`, if surely exceeded. Two trainings of one
network disagree on about as many inputs (churn: Milani Fard et al., NeurIPS 2016, section 4)."""


class Flips(msgspec.Struct, frozen=True, kw_only=True):
    """Per decision whether the answer differs; per sample which way it went, where answers are right or wrong."""

    flipped: NDArray[np.bool_]
    right: NDArray[np.bool_] | None
    """fp32's answer is right."""
    still: NDArray[np.bool_] | None
    """The variant's answer is right."""
    is_per_sample: bool

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Right in fp32, wrong in the variant."""
        return self.right & ~self.still if self.right is not None and self.still is not None else np.zeros(0, np.bool_)

    @property
    def won(self) -> NDArray[np.bool_]:
        """Wrong in fp32, right in the variant."""
        return self.still & ~self.right if self.right is not None and self.still is not None else np.zeros(0, np.bool_)


def flips_of(subject: Subject) -> Flips | None:
    """Return the flips, or None where the task has no top answer."""
    pairs, task = subject.pairs, subject.task
    flipped = task.flips(pairs.reference_predictions, pairs.variant_predictions)
    if flipped is None or not flipped.size:
        return None
    return Flips(
        flipped=flipped,
        right=correct(task, pairs.reference_predictions, pairs.targets),
        still=correct(task, pairs.variant_predictions, pairs.targets),
        is_per_sample=len(flipped) == len(pairs.targets),
    )


def flip_findings(subject: Subject, flips: Flips | None) -> tuple[Finding, ...]:
    """Return the judgement of the share of flips."""
    limit = subject.budget.flip_rate
    if flips is None:
        asked = limit is not None
        return (
            Finding(
                name="agreement.flips",
                grade=Grade.UNKNOWN if asked else Grade.UNAVAILABLE,
                detail=f"the task {subject.task.kind!r} has no top answer that could flip",
                advice="leave out the limit on flips, or name a task that has answers" if asked else "",
            ),
        )
    count, total = int(flips.flipped.sum()), flips.flipped.size
    interval = share_interval(count, total)
    share, most = count / total, SHARE if limit is None else limit
    if limit is not None:
        grade = Grade.PASS if share <= limit else Grade.FAIL
    elif interval.low > SHARE:
        grade = Grade.FAIL
    else:
        grade = Grade.PASS if share <= SHARE else Grade.FLAG
    detail = (
        f"{count} of {total} answers differ ({share:.2%}, 95 % interval {interval.low:.2%} to {interval.high:.2%}; "
        f"at most {most:.2%})"
    )
    return (
        Finding(
            name="agreement.flips",
            grade=grade,
            detail=detail,
            value=share,
            reference=0.0,
            limit=most,
            interval=interval,
            unit="%",
            advice="" if grade is Grade.PASS else "keep the regions that cost most in a wider format",
        ),
    )


def directions(flips: Flips) -> Table | None:
    """Return how many answers went which way, or None without labels."""
    if flips.right is None or flips.still is None or not flips.is_per_sample:
        return None
    neither = flips.flipped & ~flips.right & ~flips.still
    rows = (
        ("right to wrong", int(flips.lost.sum())),
        ("wrong to right", int(flips.won.sum())),
        ("wrong to another wrong answer", int(neither.sum())),
    )
    total = flips.flipped.size
    return Table(
        title="Flips both ways",
        columns=("direction", "samples", "share (%)"),
        rows=tuple((name, count, round(100 * count / total, 4)) for name, count in rows),
    )
