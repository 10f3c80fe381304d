"""Scores that tell inputs of the task from others; higher is more like the task's own. All in float64."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.contracts.verification import ScoreCutoff
from edgewise.numerics.statistics import auroc

Values = NDArray[np.float64]
KEEP = 0.95
_FEWEST_PER_CLASS = 4


class Gaussians(msgspec.Struct, frozen=True, kw_only=True):
    """Class means `[classes, d]` and the inverse of the covariance that they share `[d, d]`."""

    means: Values
    precision: Values


def energy(logits: Values) -> Values:
    """Return log sum_k exp(f_k), the negative free energy at T = 1: Liu et al., NeurIPS 2020, equation 4."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=-1)))


def max_logit(logits: Values) -> Values:
    """Return max_k f_k: Hendrycks et al., ICML 2022, section 3."""
    return np.asarray(logits.max(axis=-1))


def fit_gaussians(features: Values, labels: NDArray[np.int64]) -> Gaussians:
    """Fit class means and a tied covariance to features `[n, d]`: Lee et al., NeurIPS 2018, equation 1.

    With fewer than four samples per class on average there is one mean for all. The covariance is shrunk towards
    a multiple of the identity by d / (n + d), so that it can be inverted with few samples.
    """
    classes = np.unique(labels)
    if len(features) < _FEWEST_PER_CLASS * len(classes):
        classes, labels = np.zeros(1, np.int64), np.zeros(len(features), np.int64)
    means = np.stack([features[labels == each].mean(axis=0) for each in classes])
    centred = features - means[np.searchsorted(classes, labels)]
    samples, width = features.shape
    covariance = centred.T @ centred / samples
    share = width / (samples + width)
    covariance = (1 - share) * covariance + share * max(float(np.trace(covariance)) / width, 1e-12) * np.eye(width)
    return Gaussians(means=means, precision=np.linalg.inv(covariance))


def mahalanobis(features: Values, fitted: Gaussians) -> Values:
    """Return max_c -(x - m_c)^T S^-1 (x - m_c): Lee et al., NeurIPS 2018, equation 2."""
    nearest = np.full(len(features), np.inf)
    for mean in fitted.means:
        away = features - mean
        nearest = np.minimum(nearest, np.einsum("nd,nd->n", away @ fitted.precision, away))
    return -nearest


def separation(inside: ArrayLike, outside: ArrayLike) -> float:
    """Return the AUROC of a score: P(inside > outside), ties half."""
    return auroc(inside, outside)


def false_positives(inside: ArrayLike, outside: ArrayLike, *, keep: float = KEEP) -> float:
    """Return the share of outside inputs that pass where `keep` of the inside ones do (FPR@95)."""
    return float((np.asarray(outside) >= cutoff(inside, keep=keep)).mean())


def cutoff(inside: ArrayLike, *, keep: float = KEEP) -> float:
    """Return the largest score that at least `keep` of the inside inputs reach."""
    values = np.sort(np.asarray(inside, np.float64))
    return float(values[int(np.floor((1 - keep) * len(values) + 1e-9))])


def cutoffs(inside: Mapping[str, ArrayLike], *, keep: float = KEEP) -> tuple[ScoreCutoff, ...]:
    """Return one cut-off per score from the scores of good data."""
    return tuple(ScoreCutoff(score=name, cutoff=cutoff(each, keep=keep), keep=keep) for name, each in inside.items())
