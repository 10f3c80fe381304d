"""The out-of-distribution suite: whether the variant still tells inputs of the task from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.evidence import Interval
from edgewise.contracts.verification import Cell, Depth, Finding, Grade, ScoreCutoff, Section, Table
from edgewise.forge.data.labels import Labelled
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Dataset, Feeds
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify import ood_data, ood_scores
from edgewise.forge.verify.bounds import affordable, processor_seconds
from edgewise.forge.verify.corruptions.modality import View, view_of
from edgewise.forge.verify.exposed import expose
from edgewise.forge.verify.ood_scores import Gaussians, Values
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.probabilities import are_probabilities, log_probabilities
from edgewise.runtimes.base import Session

NAME, TITLE, NUMBER = "ood", "Out of distribution", 6
SCORES = ("energy", "max_logit", "mahalanobis")
DROP = 0.05
"""Of AUROC: a larger significant drop fails the variant, a smaller one is flagged."""
LEAST = 0.01
"""A drop below this changes no decision, however sure it is."""
USEFUL = 0.6
"""fp32's AUROC below which nobody would decide by a score: then there is nothing to lose."""
_FEWEST, _MOST = 32, 256
_FITTED = {Depth.QUICK: 256, Depth.FULL: 1024}
_RESAMPLES = 200


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """What one model says of some inputs: logits `[n, classes]`, features `[n, d]`."""

    logits: Values
    features: Values


Scored = dict[str, Values]
"""Per score, one value per input."""


def ood(subject: Subject, progress: Progress) -> Section:
    """Return AUROC and FPR@95 of three scores for both models, their change, and the variant's own cut-offs."""
    if not isinstance(subject.task, Classification):
        return _without(subject, f"scores of classes are needed, and the task is {subject.task.kind}")
    view = view_of(subject)
    if isinstance(view, str) or not view.name or view.kind in {"text", "tokens"}:
        return _without(subject, view if isinstance(view, str) else f"no inputs from elsewhere are made of {view.kind}")
    models = [
        _model(subject, path, plain)
        for path, plain in ((subject.reference_path, subject.reference), (subject.variant_path, subject.variant))
    ]
    inside, sets = _inputs(subject, view)
    fitting = _fitting(subject)
    progress.start("out of distribution", 2)
    scored = []
    for done, model in enumerate(models):
        fitted = _fit(_vectors(model, fitting))
        scored.append({kind: _scores(_vectors(model, feeds), fitted) for kind, feeds in {"": inside, **sets}.items()})
        progress.advance(done + 1)
    generator = np.random.default_rng((subject.seed, NUMBER, 1))
    findings = [_noted(models, len(inside), len(fitting))]
    for score in SCORES:
        findings += judged(score, scored[0], scored[1], generator)
    return Section(
        suite=NAME, title=TITLE, findings=tuple(findings), tables=(_table(scored[0], scored[1]),), seed=subject.seed
    )


def own_cutoffs(subject: Subject) -> tuple[ScoreCutoff, ...]:
    """Return a classifier's cut-offs alone, without inputs from elsewhere: the same for the same samples and seed.

    Empty for other tasks, and for less than 32 samples to fit or to cut off by.
    """
    pool: Labelled = subject.calibrate if subject.calibrate is not None else subject.test
    if not isinstance(subject.task, Classification) or min(len(pool), len(subject.test)) < _FEWEST:
        return ()
    model = _model(subject, subject.variant_path, subject.variant)
    fitting, inside = (_drawn(split, subject.seed, part) for part, split in enumerate((pool, subject.test)))
    fitted = _fit(_vectors(model, fitting))
    return ood_scores.cutoffs(_scores(_vectors(model, inside), fitted))


def _drawn(split: Labelled, seed: int, part: int) -> list[Feeds]:
    draw = np.random.default_rng((seed, NUMBER, part))
    return [split[int(at)].feeds for at in np.sort(draw.choice(len(split), min(_MOST, len(split)), replace=False))]


def _without(subject: Subject, reason: str) -> Section:
    finding = Finding(name="ood.scores", grade=Grade.UNAVAILABLE, detail=reason)
    return Section(suite=NAME, title=TITLE, findings=(finding,), seed=subject.seed)


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    run: Callable[[Feeds], tuple[Values, Values]]
    words: str


def _model(subject: Subject, path: Path, plain: Session) -> _Model:
    """Return how one model gives logits and features, and what they are."""
    found = expose(path, subject.runtime, threads=subject.threads)
    if found is None:
        return _Model(run=lambda feeds: (_logits(plain.run(feeds)[0]),) * 2, words="outputs; Mahalanobis on the logits")
    layer = found.features

    def run(feeds: Feeds) -> tuple[Values, Values]:
        outputs = found.session.run(feeds)
        logits = _logits(outputs[found.logits])
        return logits, logits if layer is None else _pooled(outputs[layer])

    where = "logits" if layer is None else "penultimate features"
    return _Model(run=run, words=f"logits; Mahalanobis on the {where}")


def _logits(output: NDArray[np.float64]) -> Values:
    """Return class scores `[classes]`; probabilities become their logarithms, which lack the common offset."""
    row = np.nan_to_num(np.asarray(output, np.float64).reshape(-1), posinf=1e6, neginf=-1e6)
    return np.asarray(log_probabilities(row, stored=True)) if are_probabilities(row) else row


def _pooled(features: NDArray[np.float64]) -> Values:
    """Return one vector `[d]`: averaged over all axes but the channels of a picture."""
    values = np.nan_to_num(np.asarray(features, np.float64))
    return np.asarray(values.mean(axis=(0, 2, 3)) if values.ndim == 4 else values.reshape(-1))


def _inputs(subject: Subject, view: View) -> tuple[list[Feeds], dict[str, list[Feeds]]]:
    """Return seeded test inputs, and as many of each kind that do not belong to the task."""
    each = processor_seconds(lambda: subject.run_both(subject.test[0].feeds)) * (1 + len(ood_data.KINDS))
    count = affordable(subject.seconds / 2, each, have=min(_MOST, len(subject.test)), least=_FEWEST)
    draw = np.random.default_rng((subject.seed, NUMBER))
    chosen = np.sort(draw.choice(len(subject.test), count, replace=False))
    inside = [subject.test[int(at)].feeds for at in chosen]
    return inside, {kind: [ood_data.outside(kind, view, feeds, draw) for feeds in inside] for kind in ood_data.KINDS}


def _fitting(subject: Subject) -> list[Feeds]:
    pool: Dataset = subject.calibrate if subject.calibrate is not None else subject.test
    each = processor_seconds(lambda: subject.run_both(pool[0].feeds))
    most = affordable(subject.seconds / 2, each, have=min(_FITTED[subject.depth], len(pool)), least=2 * _FEWEST)
    draw = np.random.default_rng((subject.seed, NUMBER, 0))
    chosen = np.sort(draw.choice(len(pool), most, replace=False))
    return [pool[int(at)].feeds for at in chosen]


def _vectors(model: _Model, feeds: Sequence[Feeds]) -> Vectors:
    logits, features = zip(*(model.run(each) for each in feeds), strict=True)
    return Vectors(logits=np.stack(logits), features=np.stack(features))


def _fit(said: Vectors) -> Gaussians:
    """Fit to what the model itself says of calibration inputs, by the class that it gives them."""
    return ood_scores.fit_gaussians(said.features, said.logits.argmax(axis=1).astype(np.int64))


def _scores(said: Vectors, fitted: Gaussians) -> Scored:
    return {
        "energy": ood_scores.energy(said.logits),
        "max_logit": ood_scores.max_logit(said.logits),
        "mahalanobis": ood_scores.mahalanobis(said.features, fitted),
    }


def _noted(models: Sequence[_Model], inside: int, fitted: int) -> Finding:
    return Finding(
        name="ood.inputs",
        grade=Grade.NOTED,
        detail=f"{inside} test inputs beside as many of each: {', '.join(ood_data.KINDS)}; {fitted} calibration inputs "
        f"fit the Gaussians by the model's own classes; fp32 gives {models[0].words}, the variant {models[1].words}",
        value=float(inside),
    )


def judged(
    score: str, before: dict[str, Scored], after: dict[str, Scored], generator: np.random.Generator
) -> list[Finding]:
    """Return what is said of one score of fp32 (`before`) and the variant; by kind of input, `""` those of the task."""
    kinds = ood_data.KINDS
    mine, its = _mean_auroc(score, before, None), _mean_auroc(score, after, None)
    count = len(before[""][score])
    drawn = []
    for _ in range(_RESAMPLES):
        at = generator.integers(count, size=count), generator.integers(count, size=count)
        drawn.append(_mean_auroc(score, after, at) - _mean_auroc(score, before, at))
    low, high = np.quantile(drawn, (0.025, 0.975))
    change = its - mine
    useful = mine >= USEFUL
    grade = Grade.PASS if useful else Grade.NOTED
    if useful and high < 0 and change < -LEAST:
        grade = Grade.FAIL if change < -DROP else Grade.FLAG
    leaks = [
        float(np.mean([ood_scores.false_positives(side[""][score], side[kind][score]) for kind in kinds]))
        for side in (before, after)
    ]
    own, fp32 = ood_scores.cutoffs({score: after[""][score]})[0], ood_scores.cutoff(before[""][score])
    kept = float((after[""][score] >= fp32).mean())
    return [
        Finding(
            name="ood.auroc",
            subject=score,
            grade=grade,
            detail=f"AUROC {its:.4f}, fp32 {mine:.4f}: {change:+.4f} [{low:+.4f}, {high:+.4f}], the mean over "
            f"{len(kinds)} kinds of inputs from elsewhere"
            + ("" if useful else "; fp32 itself does not tell them by this score"),
            value=its,
            reference=mine,
            limit=DROP,
            interval=Interval(low=float(low), high=float(high)),
            advice="keep the last layers in higher precision" if grade in (Grade.FLAG, Grade.FAIL) else "",
        ),
        Finding(
            name="ood.fpr95",
            subject=score,
            grade=Grade.NOTED,
            detail=f"{leaks[1]:.1%} of inputs from elsewhere pass where 95 % of the task's do, fp32 {leaks[0]:.1%}",
            value=leaks[1],
            reference=leaks[0],
        ),
        Finding(
            name="ood.cutoff",
            subject=score,
            grade=Grade.NOTED,
            detail=f"the variant's own cut-off keeps {own.keep:.0%} of good inputs, fp32's would keep {kept:.1%}",
            value=own.cutoff,
            reference=fp32,
            limit=own.keep,
        ),
    ]


def _mean_auroc(score: str, side: dict[str, Scored], at: tuple[NDArray[np.int64], NDArray[np.int64]] | None) -> float:
    inside = side[""][score] if at is None else side[""][score][at[0]]
    outside = [side[kind][score] if at is None else side[kind][score][at[1]] for kind in ood_data.KINDS]
    return float(np.mean([ood_scores.separation(inside, each) for each in outside]))


def _table(before: dict[str, Scored], after: dict[str, Scored]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kind in ood_data.KINDS:
        for score in SCORES:
            cells = [
                measure(side[""][score], side[kind][score])
                for measure in (ood_scores.separation, ood_scores.false_positives)
                for side in (before, after)
            ]
            rows.append((kind, score, *cells))
    return Table(
        title="Inputs from elsewhere",
        columns=("inputs", "score", "AUROC fp32", "AUROC variant", "FPR@95 fp32", "FPR@95 variant"),
        rows=tuple(rows),
    )
