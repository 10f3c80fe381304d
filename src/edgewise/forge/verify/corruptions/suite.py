"""The corruptions suite: what each condition costs the variant beyond what it costs fp32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.contracts.verification import Chart, Depth, Finding, Grade, Line, Section, Table
from edgewise.forge.progress import Progress
from edgewise.forge.verify.corruptions.compare import Excess, excess
from edgewise.forge.verify.corruptions.modality import View, view_of
from edgewise.forge.verify.corruptions.trial import NUMBER, Case, Trials, run_trials
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.contingency import holm

NAME, TITLE = "corruptions", "Corruptions"
MARGIN = 0.05
"""Of fp32's score: what the variant may lose beyond fp32 under a condition; a larger `accuracy_drop` takes its place.
Where a condition takes tens of points from both, a limit meant for clean inputs would fail any integers."""
TOLD = 0.1
"""Of the margin: a smaller excess is not flagged, however sure it is. Paired samples make differences significant that
are a thousandth of the score, ten of which would still be far from the margin."""
_ALPHA = 0.05
_QUICK_SEVERITIES = (1, 3, 5)


def corruptions(subject: Subject, progress: Progress) -> Section:
    """Return, per condition, how much more the variant loses than fp32, with a test that allows for many conditions.

    A condition fails the variant where the excess is significant (sign-flip test, Holm over conditions) and the whole
    of its interval beyond the margin; it is flagged where the excess is significant and a tenth of the margin.
    """
    view = view_of(subject)
    if isinstance(view, str):
        return _section(subject, (Finding(name="corruptions.input", grade=Grade.UNAVAILABLE, detail=view),))
    cases = _cases(view, subject.depth)
    trials = run_trials(subject, view, cases, progress)
    names = list(dict.fromkeys(name for name, _ in cases))
    draw = np.random.default_rng((subject.seed, NUMBER, 0))
    found = {name: _excess(trials, name, draw) for name in names}
    judged = {name: each for name, each in found.items() if each is not None}
    adjusted = dict(zip(judged, holm([each.p for each in judged.values()]), strict=True))
    margin = _margin(subject, trials)
    findings = [
        Finding(
            name="corruptions.input",
            grade=Grade.NOTED,
            detail=f"{view.words}; {trials.samples} samples under {len(cases)} conditions; lost: {trials.measure}",
            value=float(trials.samples),
        ),
        _broken(trials),
        *(finding_of(trials, name, judged[name], adjusted[name], margin) for name in judged),
        *(Finding(name=f"corruptions.{name}", grade=Grade.UNAVAILABLE, detail=why)
          for name, why in view.missing.items()),
    ]  # fmt: skip
    flips = _flips(trials)
    if flips is not None:
        findings.append(flips)
    return _section(subject, tuple(findings), tables=(_table(trials),), charts=_charts(trials, names))


def _section(
    subject: Subject, findings: tuple[Finding, ...], *, tables: tuple[Table, ...] = (), charts: tuple[Chart, ...] = ()
) -> Section:
    return Section(suite=NAME, title=TITLE, findings=findings, tables=tables, charts=charts, seed=subject.seed)


def _cases(view: View, depth: Depth) -> list[Case]:
    names = view.quick if depth is Depth.QUICK else tuple(view.conditions)
    severe = {
        name: [each for each in view.conditions[name] if depth is Depth.FULL or each in _QUICK_SEVERITIES]
        for name in names
    }
    return [(name, severity) for name, severities in severe.items() for severity in severities]


def _excess(trials: Trials, name: str, draw: np.random.Generator) -> Excess | None:
    """Return the excess loss of one condition, averaged over its severities per unit."""
    losses = [each.variant.loss - each.reference.loss for (of, _), each in trials.cases.items() if of == name]
    mean = np.mean(losses, axis=0)
    return excess(mean, generator=draw) if np.isfinite(mean).any() else None


def _margin(subject: Subject, trials: Trials) -> float:
    """Return what may be lost: the budget's drop, else a share of fp32's score, or of its own loss without labels."""
    if trials.measure != subject.task.metric:
        return max(float(np.mean([np.nanmean(each.reference.loss) for each in trials.cases.values()])) * 0.25, 1e-3)
    score = subject.task.score(subject.pairs.reference_predictions, subject.pairs.targets)
    margin = MARGIN * abs(score.value) if score is not None else MARGIN
    return max(margin, subject.budget.accuracy_drop or 0.0)


def finding_of(trials: Trials, name: str, found: Excess, p: float, margin: float) -> Finding:
    """Grade one condition by its excess, its adjusted p and what may be lost, both per unit of the loss."""
    worst, its = max(
        ((severity, _mean_excess(trials, (name, severity))) for of, severity in trials.cases if of == name),
        key=lambda each: each[1],
    )
    lost = {side: _mean_loss(trials, name, side) for side in ("reference", "variant")}
    surely = p < _ALPHA and found.mean > 0
    grade = Grade.PASS
    if surely and found.mean >= TOLD * margin:
        least = found.mean if found.interval is None else found.interval.low
        grade = Grade.FAIL if least > margin else Grade.FLAG
    bounds = "" if found.interval is None else f" [{found.interval.low:+.4f}, {found.interval.high:+.4f}]"
    verdict = "significantly more than" if surely else "not significantly more than"
    small = f", too little to tell of (below {TOLD * margin:.2g})" if surely and grade is Grade.PASS else ""
    return Finding(
        name=f"corruptions.{name}",
        subject=f"severity {worst}",
        grade=grade,
        detail=(
            f"the variant loses {lost['variant']:+.4f}, fp32 {lost['reference']:+.4f}: {found.mean:+.4f}{bounds} "
            f"beyond fp32, {verdict} fp32 (p = {p:.3g} of {found.units}){small}; worst at severity {worst}: {its:+.4f}"
        ),
        value=lost["variant"],
        reference=lost["reference"],
        limit=margin,
        interval=found.interval,
        advice="" if grade is Grade.PASS else "calibrate with inputs of this kind among the samples, or widen ranges",
    )


def _mean_excess(trials: Trials, case: Case) -> float:
    found = trials.cases[case]
    return float(np.nanmean(found.variant.loss - found.reference.loss))


def _mean_loss(trials: Trials, name: str, side: str) -> float:
    losses = [getattr(each, side).loss for (of, _), each in trials.cases.items() if of == name]
    return float(np.nanmean(losses))


def _broken(trials: Trials) -> Finding:
    """Judge outputs that are no numbers under a condition where fp32's are."""
    more = {case: each.variant.broken - each.reference.broken for case, each in trials.cases.items()}
    worst = max(more, key=lambda case: more[case])
    bad = more[worst] > 0
    name, severity = worst
    return Finding(
        name="corruptions.finite",
        subject=f"{name} {severity}" if bad else "",
        grade=Grade.FAIL if bad else Grade.PASS,
        detail=f"{more[worst]} outputs are no numbers where fp32's are" if bad else "every output is a number",
        value=float(max(more[worst], 0)),
        reference=0.0,
    )


def _flips(trials: Trials) -> Finding | None:
    """Note how many answers differ from fp32's under corruption, beside those on clean inputs."""
    under = [each.flips for each in trials.cases.values() if each.flips is not None]
    if trials.clean_flips is None or not under:
        return None
    clean, corrupted = float(trials.clean_flips.mean()), float(np.mean([each.mean() for each in under]))
    same = all(each.shape == trials.clean_flips.shape for each in under)
    paired = np.mean(under, axis=0) - trials.clean_flips if same else None
    low_high = ""
    if paired is not None and paired.size > 1:
        half = 1.96 * float(paired.std(ddof=1)) / np.sqrt(paired.size)
        low_high = f" [{paired.mean() - half:+.4f}, {paired.mean() + half:+.4f}]"
    return Finding(
        name="corruptions.flips",
        grade=Grade.NOTED,
        detail=f"{corrupted:.2%} of answers differ from fp32's under corruption, {clean:.2%} without: "
        f"{corrupted - clean:+.4f}{low_high}",
        value=corrupted,
        reference=clean,
    )


def _table(trials: Trials) -> Table:
    rows = []
    for (name, severity), each in trials.cases.items():
        flips = None if each.flips is None else float(each.flips.mean())
        fp32, variant = (float(np.nanmean(side.loss)) for side in (each.reference, each.variant))
        rows.append((name, severity, fp32, variant, variant - fp32, flips))
    return Table(
        title=f"Loss under corruption, in {trials.measure}",
        columns=("condition", "severity", "fp32 loses", "variant loses", "beyond fp32", "flips against fp32"),
        rows=tuple(rows),
        note=f"{trials.samples} samples, the same under every condition",
    )


def _charts(trials: Trials, names: Sequence[str]) -> tuple[Chart, ...]:
    """Return the mean loss of both models over the severities that all conditions have."""
    severities = sorted({severity for _, severity in trials.cases})
    shared = [each for each in severities if all((name, each) in trials.cases for name in names)]
    if len(shared) < 2:
        severities, names = sorted({s for _, s in trials.cases}), [n for n in names if (n, 5) in trials.cases]
        shared = [each for each in severities if all((name, each) in trials.cases for name in names)]
    if len(shared) < 2:
        return ()
    lines = []
    for side, words in (("reference", "fp32"), ("variant", "variant")):
        means = [float(np.nanmean([getattr(trials.cases[name, at], side).loss for name in names])) for at in shared]
        lines.append(Line(name=words, x=tuple(float(each) for each in shared), y=tuple(means)))
    title = f"Mean loss over {len(names)} conditions" if len(names) > 1 else f"Loss under {names[0]}"
    return (Chart(title=title, x_label="severity", y_label=f"loss in {trials.measure}", lines=tuple(lines)),)
