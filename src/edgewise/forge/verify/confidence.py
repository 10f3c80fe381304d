"""Confidence: whether the variant's probabilities still mean what fp32's did."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.evidence import Interval
from edgewise.contracts.verification import Chart, Finding, Grade, Line, Table
from edgewise.forge.verify.beliefs import Beliefs, DoubleArray
from edgewise.forge.verify.flips import Flips
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.bootstrap import bca_interval
from edgewise.numerics.calibration_error import (
    area_under_risk_coverage,
    brier,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    risk_coverage,
)
from edgewise.numerics.statistics import share_interval

RISE = 0.02
"""A calibration error that surely rises, and by more than this, is worth a look."""
_RESAMPLES = 600
_MOST_JACKKNIFED = 2000
_POINTS = 60
_BINS, _FEWEST = 10, 20


class _Seen(msgspec.Struct, frozen=True):
    """One model's probabilities, its confidence and whether it is right."""

    probabilities: DoubleArray
    confidence: DoubleArray
    correct: NDArray[np.bool_]


def confidence_findings(subject: Subject, beliefs: Beliefs) -> tuple[Finding, ...]:
    """Return KL, and with labels ECE, NLL, Brier score and the area under the risk-coverage curve, beside fp32's."""
    kl = (np.exp(beliefs.reference) * (beliefs.reference - beliefs.variant)).sum(1)
    found = [
        Finding(
            name="agreement.kl",
            grade=Grade.NOTED,
            detail="mean divergence of the variant's probabilities from fp32's, in nats; "
            f"99 of 100 samples are below {float(np.quantile(kl, 0.99)):.3g}",
            value=float(kl.mean()),
            reference=0.0,
            unit="nats",
        )
    ]
    known = beliefs.labelled()
    if not known.labels.size:
        return tuple(found)
    before, after = _seen(known.reference, known.labels), _seen(known.variant, known.labels)
    found.append(_calibration_error(subject, before, after))
    scores: tuple[tuple[str, str, Callable[[_Seen], float]], ...] = (
        ("nll", "negative log likelihood of the labels, in nats", lambda of: _nll(of, known.labels)),
        ("brier", "Brier score, from 0 to 2", lambda of: brier(of.probabilities, known.labels)),
        (
            "aurc",
            "area under the risk-coverage curve: errors among the inputs it is surest of, over all coverages",
            lambda of: area_under_risk_coverage(of.confidence, of.correct),
        ),
    )
    for name, words, score in scores:
        found.append(
            Finding(
                name=f"agreement.{name}", grade=Grade.NOTED, detail=words, value=score(after), reference=score(before)
            )
        )
    return tuple(found)


def confidence_charts(beliefs: Beliefs) -> tuple[Chart, ...]:
    """Return reliability and risk against coverage, both models in one chart; none without labels."""
    known = beliefs.labelled()
    if not known.labels.size:
        return ()
    models = (("fp32", _seen(known.reference, known.labels)), ("variant", _seen(known.variant, known.labels)))
    return (
        Chart(
            title="Reliability: share correct against confidence",
            x_label="confidence",
            y_label="share correct",
            lines=tuple(_reliability(name, of) for name, of in models),
        ),
        Chart(
            title="Risk against coverage: errors among the inputs a model is surest of",
            x_label="share of inputs answered",
            y_label="share wrong among them",
            lines=tuple(_risk(name, of) for name, of in models),
        ),
    )


def disagreement_by_margin(subject: Subject, flips: Flips) -> tuple[Chart, Table] | None:
    """Return how often answers differ, by how sure fp32 was, or None where the task has no margins."""
    margins = subject.pairs.reference_margins
    if not flips.is_per_sample or any(each is None for each in margins) or len(margins) < _FEWEST:
        return None
    sure = np.array(margins, np.float64)
    bins = min(_BINS, len(margins) // (_FEWEST // 2))
    parts = np.array_split(np.argsort(sure, kind="stable"), bins)
    rows, points = [], []
    for part in parts:
        count, total = int(flips.flipped[part].sum()), len(part)
        interval = share_interval(count, total)
        low, high = float(sure[part].min()), float(sure[part].max())
        points.append((float(np.median(sure[part])), count / total, interval.low, interval.high))
        rows.append((f"{low:.3f} to {high:.3f}", total, count, round(100 * count / total, 3)))
    x, y, low_ends, high_ends = (tuple(column) for column in zip(*points, strict=True))
    chart = Chart(
        title="Disagreement against fp32's margin",
        x_label="fp32's margin: probability of its best class minus that of the second",
        y_label="share of answers that differ",
        lines=(Line(name="variant", x=x, y=y, low=low_ends, high=high_ends),),
    )
    table = Table(
        title="Disagreement against fp32's margin",
        columns=("margin", "samples", "flips", "share (%)"),
        rows=tuple(rows),
        note="Flips at small margins are inputs that fp32 was unsure of; flips at large ones are damage.",
    )
    return chart, table


def _calibration_error(subject: Subject, before: _Seen, after: _Seen) -> Finding:
    value = expected_calibration_error(after.confidence, after.correct)
    reference = expected_calibration_error(before.confidence, before.correct)
    interval = _rise(subject, before, after)
    worse = interval is not None and interval.low > 0 and value - reference > RISE
    bounds = "" if interval is None else f" (change {interval.low:+.4f} to {interval.high:+.4f})"
    return Finding(
        name="agreement.ece",
        grade=Grade.FLAG if worse else Grade.PASS,
        detail=f"expected calibration error {value:.4f}, fp32 {reference:.4f}{bounds}",
        value=value,
        reference=reference,
        limit=reference + RISE,
        interval=None
        if interval is None
        else Interval(low=reference + interval.low, high=reference + interval.high, level=interval.level),
        advice="use the variant's own temperature, which stands in its calibration" if worse else "",
    )


def _rise(subject: Subject, before: _Seen, after: _Seen) -> Interval | None:
    """Return the interval of the rise of the calibration error, from at most so many samples."""
    total = min(len(after.correct), _MOST_JACKKNIFED)
    generator = np.random.default_rng((subject.seed, 1))

    def rise(drawn: NDArray[np.intp]) -> float:
        return expected_calibration_error(after.confidence[drawn], after.correct[drawn]) - expected_calibration_error(
            before.confidence[drawn], before.correct[drawn]
        )

    return bca_interval(rise, total, generator=generator, resamples=_RESAMPLES) if total > 1 else None


def _seen(logs: DoubleArray, labels: NDArray[np.int64]) -> _Seen:
    probabilities = np.exp(logs)
    return _Seen(probabilities, probabilities.max(1), logs.argmax(1) == labels)


def _nll(of: _Seen, labels: NDArray[np.int64]) -> float:
    return negative_log_likelihood(of.probabilities, labels)


def _reliability(name: str, of: _Seen) -> Line:
    table = reliability(of.confidence, of.correct)
    known = table[table[:, 0] > 0]
    bands = [share_interval(round(count * share), int(count)) for count, _, share in known]
    return Line(
        name=name,
        x=tuple(known[:, 1].tolist()),
        y=tuple(known[:, 2].tolist()),
        low=tuple(each.low for each in bands),
        high=tuple(each.high for each in bands),
    )


def _risk(name: str, of: _Seen) -> Line:
    coverage, risk = risk_coverage(of.confidence, of.correct)
    at = np.unique(np.linspace(0, len(coverage) - 1, _POINTS).astype(np.intp))
    return Line(name=name, x=tuple(coverage[at].tolist()), y=tuple(risk[at].tolist()))
