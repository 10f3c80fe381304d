"""The task's score of both models on the same samples: the difference, its interval, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.evidence import Interval
from edgewise.contracts.verification import Finding, Grade
from edgewise.errors import EdgewiseError
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.tasks.embedding import Pair
from edgewise.forge.tasks.speech import Speech, words
from edgewise.forge.verify.bounds import affordable, processor_seconds
from edgewise.forge.verify.subject import Pairs, Subject
from edgewise.numerics.bootstrap import percentile_interval
from edgewise.numerics.paired import share_difference_interval
from edgewise.numerics.statistics import mcnemar

MARGIN = 0.01
"""Share of fp32's score that a variant may lose where the budget sets no `accuracy_drop`: MLPerf Inference asks for
99 % of the fp32 score (Reddi et al., ISCA 2020, section III-B)."""
_RESAMPLES = 2000
_FEWEST_RESAMPLES = 200


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Both scores; `loss` is positive where the variant is worse, whichever way the metric points."""

    reference: float
    variant: float
    loss: float
    interval: Interval | None
    """Of the loss."""
    method: str


def correct(task: Task, predictions: Sequence[Any], targets: Sequence[Any]) -> NDArray[np.bool_] | None:
    """Return per sample whether the answer is right, or None where the task has no right and wrong per sample.

    Samples without a label count as wrong for both models: they say nothing about a difference.
    """
    if all(target is None for target in targets):
        return None
    pairs = zip(predictions, targets, strict=True)
    if isinstance(task, Classification):
        return np.array([target is not None and int(best[0]) == int(target) for best, target in pairs], np.bool_)
    if isinstance(task, Speech) and task.vocabulary is not None:
        return np.array([isinstance(text, str) and words(said) == words(text) for said, text in pairs], np.bool_)
    return None


def compare_scores(subject: Subject) -> Scores | None:
    """Return both scores with the interval of the loss, or None where the task has no score on this data.

    Top-1 accuracy is a share of hits and has a score interval (Tango); any other metric is resampled.
    """
    task, pairs = subject.task, subject.pairs
    before = task.score(pairs.reference_predictions, pairs.targets)
    after = task.score(pairs.variant_predictions, pairs.targets)
    if before is None or after is None:
        return None
    sign = 1.0 if task.higher_is_better else -1.0
    interval, method = _interval(subject, sign)
    return Scores(
        reference=before.value,
        variant=after.value,
        loss=sign * (before.value - after.value),
        interval=interval,
        method=method,
    )


def score_findings(subject: Subject, scores: Scores | None) -> tuple[Finding, ...]:
    """Return the judgement of the score, and McNemar's test where answers are right or wrong."""
    task, pairs = subject.task, subject.pairs
    if scores is None:
        asked = subject.budget.accuracy_drop is not None
        grade = Grade.UNKNOWN if asked else Grade.UNAVAILABLE
        return (
            Finding(
                name="agreement.score",
                grade=grade,
                detail=f"{task.metric} is not known: the test split has no labels that this task can score",
                advice="give labels (`y` in test.npz), or name the task" if asked else "",
            ),
        )
    found = [_score_finding(subject, scores)]
    right = correct(task, pairs.reference_predictions, pairs.targets)
    still = correct(task, pairs.variant_predictions, pairs.targets)
    if right is not None and still is not None:
        lost, won = int((right & ~still).sum()), int((still & ~right).sum())
        p = mcnemar(lost, won)
        found.append(
            Finding(
                name="agreement.mcnemar",
                grade=Grade.NOTED,
                detail=f"{lost} answers went from right to wrong and {won} from wrong to right (exact p = {p:.3g})",
                value=p,
            )
        )
    return tuple(found)


def _score_finding(subject: Subject, scores: Scores) -> Finding:
    limit = subject.budget.accuracy_drop
    margin = abs(scores.reference) * MARGIN if limit is None else limit
    grade, words_ = _judged(scores, margin, is_budget=limit is not None)
    bounds = "" if scores.interval is None else f" [{scores.interval.low:+.4f}, {scores.interval.high:+.4f}]"
    detail = (
        f"{subject.task.metric} {scores.variant:.4f}, fp32 {scores.reference:.4f}: "
        f"a loss of {scores.loss:+.4f}{bounds} ({scores.method}); {words_} {margin:.4g}"
    )
    return Finding(
        name="agreement.score",
        grade=grade,
        detail=detail,
        value=scores.variant,
        reference=scores.reference,
        limit=margin,
        interval=scores.interval,
        advice="" if grade is Grade.PASS else "look at which regions cost most, or use more test samples",
    )


def _judged(scores: Scores, margin: float, *, is_budget: bool) -> tuple[Grade, str]:
    """Return the grade of a loss against a margin, and the words that lead to the margin.

    A budget's limit judges the measured loss, as everywhere else. The default margin fails only what is both
    larger than the margin and significantly a loss; between that and shown non-inferiority it is flagged.
    """
    low, high = (scores.interval.low, scores.interval.high) if scores.interval else (scores.loss, scores.loss)
    if is_budget:
        return (Grade.PASS, "within the limit of") if scores.loss <= margin else (Grade.FAIL, "beyond the limit of")
    if scores.loss > margin and low > 0:
        return Grade.FAIL, "significant, and beyond the margin of"
    if high <= margin or scores.loss <= 0:
        return Grade.PASS, "not worse than fp32 by the margin of"
    if scores.loss > margin:
        return Grade.FLAG, "not significant, but beyond the margin of"
    return Grade.PASS, "within the margin of"


def _interval(subject: Subject, sign: float) -> tuple[Interval | None, str]:
    task, pairs = subject.task, subject.pairs
    if isinstance(task, Classification):
        labelled = sum(each is not None for each in pairs.targets)
        right = correct(task, pairs.reference_predictions, pairs.targets)
        still = correct(task, pairs.variant_predictions, pairs.targets)
        if right is not None and still is not None:
            lost, won = int((right & ~still).sum()), int((still & ~right).sum())
            return share_difference_interval(lost, won, labelled), "95 % score interval"
    unit, units = units_of(pairs)
    statistic = _loss_of(task, pairs, unit, sign)
    generator = np.random.default_rng((subject.seed, 1))
    resamples = _affordable(statistic, units, subject.seconds)
    if resamples < _FEWEST_RESAMPLES or units < 2:
        return None, "no interval: the score takes too long to be resampled"
    try:
        interval = percentile_interval(statistic, units, generator=generator, resamples=resamples)
    except EdgewiseError:  # a user's score that refuses some resamples
        interval = None
    return interval, "95 % bootstrap interval" if interval else "no interval: the score of resamples is not defined"


def units_of(pairs: Pairs) -> tuple[int, int]:
    """Return how many consecutive samples belong together (2 for pairs of sentences), and how many such units."""
    unit = 2 if pairs.targets and isinstance(pairs.targets[0], Pair) else 1
    return unit, len(pairs.targets) // unit


def _loss_of(task: Task, pairs: Pairs, unit: int, sign: float) -> Callable[[NDArray[np.intp]], float]:
    """Return the loss as a function of which units were drawn; nan where the score is not defined on them."""

    def loss(drawn: NDArray[np.intp]) -> float:
        at = [int(each) * unit + offset for each in drawn for offset in range(unit)]
        targets = [_renumbered(pairs.targets[index], place // unit) for place, index in enumerate(at)]
        before = task.score([pairs.reference_predictions[index] for index in at], targets)
        after = task.score([pairs.variant_predictions[index] for index in at], targets)
        return sign * (before.value - after.value) if before is not None and after is not None else float("nan")

    return loss


def _renumbered(target: Any, number: int) -> Any:
    """Return a target for one draw: a pair that is drawn twice is two pairs."""
    return msgspec.structs.replace(target, index=number) if isinstance(target, Pair) else target


def _affordable(statistic: Callable[[NDArray[np.intp]], float], units: int, seconds: float) -> int:
    """Return how many resamples fit into the processor time."""
    each = processor_seconds(lambda: statistic(np.arange(units)))
    return affordable(seconds, each, have=_RESAMPLES, least=0)
