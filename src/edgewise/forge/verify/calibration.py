"""What belongs to a variant and is swapped with it: temperature and conformal thresholds, fitted on its own outputs."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.data.labels import has_integer_labels
from edgewise.forge.tasks.base import Outputs
from edgewise.forge.verify.beliefs import Beliefs, DoubleArray, log_probabilities_of
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.calibration_error import conformal_threshold, expected_calibration_error, fit_temperature
from edgewise.numerics.probabilities import are_probabilities
from edgewise.numerics.statistics import log_softmax

TEMPERATURE, CONFORMAL = "agreement.temperature", "agreement.conformal"
"""Names of the findings whose values become the variant's calibration."""
COVERAGES = (0.8, 0.9, 0.95)
FEWEST = 30
"""With fewer labelled samples nothing is fitted."""
_MOST = 512
_ROUNDING = 1e-12
_Z99 = 2.576


class _Fitting(msgspec.Struct, frozen=True, kw_only=True):
    """Samples to fit on, and other ones to look at the fit on."""

    logs: DoubleArray
    labels: NDArray[np.int64]
    held_out: DoubleArray
    held_out_labels: NDArray[np.int64]
    origin: str


def calibration_findings(subject: Subject, beliefs: Beliefs) -> tuple[Finding, ...]:
    """Return the temperature and the conformal thresholds, with what they do on samples they were not fitted on.

    They are fitted on the calibration pool where it has labels enough and is like the test split, else on a seeded half
    of that.
    """
    fitting = _fitting(subject, beliefs.labelled())
    if fitting is None:
        return (
            Finding(
                name=TEMPERATURE,
                grade=Grade.UNAVAILABLE,
                detail=f"not fitted: fewer than {FEWEST} labelled samples",
                advice="give labels with the calibration samples",
            ),
        )
    temperature = fit_temperature(fitting.logs, fitting.labels)
    cooled = np.exp(log_softmax(fitting.held_out / temperature))
    raw = np.exp(fitting.held_out)
    right = fitting.held_out.argmax(1) == fitting.held_out_labels
    before, after = (expected_calibration_error(each.max(1), right) for each in (raw, cooled))
    found = [
        Finding(
            name=TEMPERATURE,
            grade=Grade.NOTED,
            detail=f"fitted on {len(fitting.labels)} samples of {fitting.origin}; on others it takes the calibration "
            f"error from {before:.4f} to {after:.4f}",
            value=temperature,
        )
    ]
    own = np.exp(log_softmax(fitting.logs / temperature))
    found += [_conformal(fitting, own, cooled, coverage) for coverage in COVERAGES]
    return tuple(found)


def _conformal(fitting: _Fitting, own: DoubleArray, cooled: DoubleArray, coverage: float) -> Finding:
    """Return one threshold, fitted after the temperature, and how often its sets hold the label on other samples."""
    threshold = conformal_threshold(own, fitting.labels, coverage=coverage)
    inside = 1 - cooled <= threshold + _ROUNDING
    hits = int(inside[np.arange(len(cooled)), fitting.held_out_labels].sum())
    return Finding(
        name=CONFORMAL,
        subject=f"{coverage:g}",
        grade=Grade.NOTED,
        detail=f"fitted on {fitting.origin}: sets of classes with 1 - p <= {threshold:.4g} hold the label of "
        f"{hits / len(cooled):.2%} of {len(cooled)} other samples, with {inside.sum(1).mean():.2f} classes on average",
        value=threshold,
        limit=coverage,
    )


def _fitting(subject: Subject, known: Beliefs) -> _Fitting | None:
    """Return what to fit on: the calibration pool, unless the test split shows that it is of another kind."""
    if not known.labels.size:
        return None
    pool = _of_pool(subject, known)
    if pool is not None and _is_alike(pool):
        return pool
    if len(known.labels) < 2 * FEWEST:
        return pool
    order = np.random.default_rng((subject.seed, 1)).permutation(len(known.labels))
    mine, rest = order[: len(order) // 2], order[len(order) // 2 :]
    return _Fitting(
        logs=known.variant[mine],
        labels=known.labels[mine],
        held_out=known.variant[rest],
        held_out_labels=known.labels[rest],
        origin="a seeded half of the test split"
        + ("" if pool is None else " (the calibration pool is easier or harder than it)"),
    )


def _of_pool(subject: Subject, known: Beliefs) -> _Fitting | None:
    """Return the variant's beliefs on labelled calibration samples, or None where there are too few."""
    pool = subject.calibrate
    if pool is None or len(pool) < FEWEST or not has_integer_labels(pool):
        return None
    order = np.random.default_rng((subject.seed, 1)).permutation(len(pool))[:_MOST]
    samples = [pool[int(at)] for at in np.sort(order)]
    outputs: list[Outputs] = [subject.variant.run(each.feeds) for each in samples]
    if not all(np.isfinite(each[0]).all() for each in outputs):
        return None
    stored = are_probabilities(subject.pairs.reference_outputs[0][0].reshape(1, -1))
    return _Fitting(
        logs=log_probabilities_of(outputs, stored=stored),
        labels=np.array([each.target for each in samples], np.int64),
        held_out=known.variant,
        held_out_labels=known.labels,
        origin="the calibration pool",
    )


def _is_alike(fitting: _Fitting) -> bool:
    """Return whether a threshold of the pool covers the test split as it should, at the 1 % level.

    Pools are often taken from the training set, on which a model is surer than it will ever be again. The share that
    is covered varies with both samples: its variance is a (1 - a) (1 / n + 1 / m).
    """
    middle = COVERAGES[1]
    temperature = fit_temperature(fitting.logs, fitting.labels)
    own, other = (np.exp(log_softmax(each / temperature)) for each in (fitting.logs, fitting.held_out))
    threshold = conformal_threshold(own, fitting.labels, coverage=middle)
    p = other[np.arange(len(fitting.held_out_labels)), fitting.held_out_labels]
    covered = float((1 - p <= threshold + _ROUNDING).mean())
    spread = (middle * (1 - middle) * (1 / len(fitting.labels) + 1 / len(p))) ** 0.5
    return bool(abs(covered - middle) <= _Z99 * spread)
