"""The adversarial suite: whether quantization opens doors that fp32 keeps shut.

Gradients are taken in torch from the fp32 graph; those of quantized models mask (Athalye et al., ICML 2018). The
differential attack also needs one through the variant's own Q/DQ graph. What is judged always runs on the runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Cell, Finding, Grade, Section, Table
from edgewise.errors import MissingExtraError
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.adversarial_attacks import Ball, cross_entropy, difference, fgsm, pgd, square
from edgewise.forge.verify.adversarial_surrogate import Surrogate, UnsupportedOperatorError, single_thread
from edgewise.forge.verify.bounds import affordable, processor_seconds
from edgewise.forge.verify.corruptions.modality import View, view_of
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.paired import share_difference_interval
from edgewise.runtimes.base import Session

NAME, TITLE, NUMBER = "adversarial", "Adversarial inputs", 7
LEVELS = (2, 8)
"""Radii in steps of 1/255 of the pixel range; the square attack and PGD are compared at the larger one."""
QUERIES = 150
DROP = 0.05
"""Of robust accuracy: a larger significant loss against fp32 fails the variant."""
MANY = 0.25
"""Share of inputs with a differential example from which on a person should look."""
_FEWEST, _MOST = 8, 128
"""Samples."""
_CLOSE = 0.02
"""Of the output's range: a surrogate that is further off does not stand for its model."""


class _Sample(msgspec.Struct, frozen=True, kw_only=True):
    feeds: Feeds
    x: Array
    label: int


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Per sample, whether fp32 and the variant are still right on the attacked input."""

    reference: NDArray[np.bool_]
    variant: NDArray[np.bool_]


def adversarial(subject: Subject, progress: Progress) -> Section:
    """Return robust accuracy of both models under each attack, and how many inputs part them."""
    view = view_of(subject)
    if not isinstance(subject.task, Classification) or subject.pairs.targets[0] is None:
        return _without(subject, f"labelled classes are needed, and the task is {subject.task.kind}")
    if isinstance(view, str) or view.space is None:
        return _without(subject, "the radius of an attack is given in pixels, and the input is no image")
    with single_thread():
        return _attack(subject, view, progress)


def _attack(subject: Subject, view: View, progress: Progress) -> Section:
    models, findings = _surrogates(subject, view)
    samples = _chosen(subject, view, models)
    outcomes: dict[tuple[str, int], _Outcome] = {}
    progress.start("adversarial inputs", len(samples))
    found: dict[tuple[str, int], list[tuple[bool, bool]]] = {}
    for done, sample in enumerate(samples):
        for key, right in _attacked(subject, view, models, sample, done).items():
            found.setdefault(key, []).append(right)
        progress.advance(done + 1)
    for key, pairs in found.items():
        rows = np.array(pairs, np.bool_)
        outcomes[key] = _Outcome(reference=rows[:, 0], variant=rows[:, 1])
    if not samples:
        nothing = "no input is right in both models, so there is nothing to attack"
        findings.append(Finding(name="adversarial.attacks", grade=Grade.UNKNOWN, detail=nothing))
    findings += [_robust(key, each, len(outcomes)) for key, each in outcomes.items()
                 if key[0] in {"fgsm", "pgd", "square"}]  # fmt: skip
    findings += [_parting(level, outcomes) for level in LEVELS if ("diva", level) in outcomes]
    return Section(
        suite=NAME,
        title=TITLE,
        findings=tuple(findings),
        tables=(_table(outcomes, len(samples)),),
        seed=subject.seed,
    )


def _without(subject: Subject, reason: str) -> Section:
    finding = Finding(name="adversarial.attacks", grade=Grade.UNAVAILABLE, detail=reason)
    return Section(suite=NAME, title=TITLE, findings=(finding,), seed=subject.seed)


def _surrogates(subject: Subject, view: View) -> tuple[tuple[Surrogate | None, Surrogate | None], list[Finding]]:
    """Return both models in torch, None where one cannot be had, with findings that say why."""
    made: list[Surrogate | None] = []
    findings = []
    feeds = subject.test[0].feeds
    wanted = (
        ("gradients", "fp32", subject.normalised_path, subject.reference),
        ("differential", "the variant", subject.variant_path, subject.variant),
    )
    for name, whose, path, session in wanted:
        try:
            surrogate: Surrogate | None = Surrogate(path)
            assert surrogate is not None  # noqa: S101 - just made; the name is None only below
            off = _distance(surrogate.run(view.name, feeds[view.name]), session.run(feeds)[0])
        except (MissingExtraError, UnsupportedOperatorError) as error:
            reason = error.next_step if isinstance(error, MissingExtraError) else f"torch has no counterpart of {error}"
            grade, surrogate, detail = Grade.UNAVAILABLE, None, f"no gradient through {whose}: {reason}"
        else:
            close = off <= _CLOSE
            detail = f"{whose} in torch is off by {off:.2%} of the range of its outputs"
            grade = Grade.NOTED if close else Grade.UNAVAILABLE
            surrogate = surrogate if close else None
        findings.append(Finding(name=f"adversarial.{name}", grade=grade, detail=detail))
        made.append(surrogate)
    return (made[0], made[1]), findings


def _distance(mine: Array, its: Array) -> float:
    flat = its.reshape(-1).astype(np.float64)
    return float(np.abs(mine.reshape(-1) - flat).max() / max(float(np.ptp(flat)), 1e-9))


def _chosen(subject: Subject, view: View, models: tuple[Surrogate | None, Surrogate | None]) -> list[_Sample]:
    """Return seeded samples that both models have right, as many as the time allows for all attacks."""
    pairs = subject.pairs
    right = [
        at for at, target in enumerate(pairs.targets)
        if target is not None and pairs.reference_predictions[at][0] == target == pairs.variant_predictions[at][0]
    ]  # fmt: skip
    if not right:
        return []
    order = np.random.default_rng((subject.seed, NUMBER)).permutation(right)
    first = _sample(subject, view, int(order[0]))
    each = processor_seconds(lambda: _attacked(subject, view, models, first, 0))
    count = affordable(subject.seconds, each, have=min(len(order), _MOST), least=_FEWEST)
    return [_sample(subject, view, int(at)) for at in order[:count]]


def _sample(subject: Subject, view: View, at: int) -> _Sample:
    feeds = subject.test[at].feeds
    return _Sample(feeds=feeds, x=feeds[view.name], label=int(subject.pairs.targets[at]))


def _attacked(
    subject: Subject, view: View, models: tuple[Surrogate | None, Surrogate | None], sample: _Sample, number: int
) -> dict[tuple[str, int], tuple[bool, bool]]:
    """Return, per attack and radius, whether fp32 and the variant are still right on one sample."""
    reference, variant = models
    draw = np.random.default_rng((subject.seed, NUMBER, 1, number))
    made: dict[tuple[str, int], Array] = {}
    for level in LEVELS:
        ball = ball_of(view, level, sample.x)
        if reference is not None:
            loss = cross_entropy(reference, view.name, sample.label)
            made["fgsm", level] = fgsm(sample.x, loss, ball)
            made["pgd", level] = pgd(sample.x, loss, ball, generator=draw)
        if reference is not None and variant is not None:
            parted = difference(reference, variant, view.name, sample.label)
            made["diva", level] = pgd(sample.x, parted, ball, generator=draw)
    found = {key: tuple(_is_right(side, view, sample, x) for side in (subject.reference, subject.variant))
             for key, x in made.items()}  # fmt: skip
    found["square", LEVELS[-1]] = _square(subject, view, sample, draw)
    return {key: (each[0], each[1]) for key, each in found.items()}


def _square(subject: Subject, view: View, sample: _Sample, draw: np.random.Generator) -> tuple[bool, bool]:
    """Attack each model by its own answers, with the same random numbers."""
    seed = int(draw.integers(2**32))
    ball = ball_of(view, LEVELS[-1], sample.x)
    assert view.space is not None  # noqa: S101 - checked by the suite
    rows = 2 if view.space.channels_first and sample.x.ndim == 4 else 1
    right = []
    for side in (subject.reference, subject.variant):
        made = square(
            sample.x,
            _margin(side, view, sample),
            ball,
            queries=QUERIES,
            rows=rows,
            generator=np.random.default_rng(seed),
        )
        right.append(_is_right(side, view, sample, made))
    return right[0], right[1]


def ball_of(view: View, level: int, x: Array) -> Ball:
    """Return the ball of `level` pixel steps, per channel, in the unit of the input."""
    assert view.space is not None  # noqa: S101 - checked by the suite
    shape = [1] * x.ndim
    if x.ndim == 4:
        shape[1 if view.space.channels_first else 3] = -1
    step, low, high = (np.reshape(each, shape) for each in (view.space.step, view.space.low, view.space.high))
    return Ball(radius=level * step, low=low, high=high)


def _margin(side: Session, view: View, sample: _Sample) -> Callable[[Array], float]:
    def margin(x: Array) -> float:
        scores = side.run({**sample.feeds, view.name: x})[0].reshape(-1).astype(np.float64)
        others = np.delete(scores, sample.label)
        return float(scores[sample.label] - others.max())

    return margin


def _is_right(side: Session, view: View, sample: _Sample, x: Array) -> bool:
    scores = side.run({**sample.feeds, view.name: x})[0].reshape(-1)
    return bool(np.isfinite(scores).all() and int(scores.argmax()) == sample.label)


def _robust(key: tuple[str, int], found: _Outcome, attacks: int) -> Finding:
    """Judge robust accuracy beside fp32's; the level of the interval allows for the number of attacks."""
    name, level = key
    lost, won = int((found.reference & ~found.variant).sum()), int((found.variant & ~found.reference).sum())
    mine, its, count = float(found.reference.mean()), float(found.variant.mean()), len(found.reference)
    interval = share_difference_interval(lost, won, count, level=1 - 0.05 / max(attacks, 1))
    grade = Grade.PASS
    if interval.low > 0:
        grade = Grade.FAIL if mine - its > DROP else Grade.FLAG
    fooled = int((~found.reference).sum())
    also = int((~found.reference & ~found.variant).sum())
    transfer = f"; {also} of {fooled} that fool fp32 fool the variant" if name != "square" and fooled else ""
    return Finding(
        name=f"adversarial.{name}",
        subject=f"{level}/255",
        grade=grade,
        detail=f"{its:.1%} of {count} stay right, fp32 {mine:.1%}: a loss of {mine - its:+.4f} "
        f"[{interval.low:+.4f}, {interval.high:+.4f}]{transfer}",
        value=its,
        reference=mine,
        limit=DROP,
        interval=interval,
        advice="" if grade is Grade.PASS else "add attacked inputs to the calibration, or train with them",
    )


def _parting(level: int, outcomes: dict[tuple[str, int], _Outcome]) -> Finding:
    """Say how many inputs the differential attack parts (right in fp32, wrong in the variant), beside PGD."""
    diva, plain = (outcomes[name, level] for name in ("diva", "pgd"))
    share, by_pgd = (float((each.reference & ~each.variant).mean()) for each in (diva, plain))
    return Finding(
        name="adversarial.diva",
        subject=f"{level}/255",
        grade=Grade.FLAG if share > MANY else Grade.PASS,
        detail=f"{share:.1%} of inputs have a neighbour right in fp32 and wrong in the variant; by PGD {by_pgd:.1%}",
        value=share,
        reference=by_pgd,
        limit=MANY,
        advice="do not rely on fp32's robustness for this variant" if share > MANY else "",
    )


def _table(outcomes: dict[tuple[str, int], _Outcome], samples: int) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            f"{level}/255",
            float(each.reference.mean()),
            float(each.variant.mean()),
            float((each.reference & ~each.variant).mean()),
        )
        for (name, level), each in outcomes.items()
    ]
    return Table(
        title="Robust accuracy on inputs that both models have right",
        columns=("attack", "radius", "fp32", "variant", "right in fp32, wrong in the variant"),
        rows=tuple(rows),
        note=f"{samples} samples",
    )
