"""How well probabilities mean what they say: calibration error, proper scores, risk against coverage.

`probabilities` are `[n, classes]`, each row non-negative with a sum of 1; `labels` are class numbers `[n]`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.numerics.statistics import log_softmax

DoubleArray = NDArray[np.float64]
BINS = 15
_TINY = float(np.finfo(np.float64).tiny)


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> DoubleArray:
    """Return per bin of equal width `[bins, 3]`: samples, mean confidence and share correct (nan where it is empty)."""
    sure, hit = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    at = np.searchsorted(edges[1:-1], sure)  # a bin holds its upper edge, as in Guo et al., section 2
    counts = np.bincount(at, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(at, weights=sure, minlength=bins) / counts
        share = np.bincount(at, weights=hit, minlength=bins) / counts
    return np.stack([counts, mean, share], axis=1)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """Return sum over bins of n_b / n |correct_b - confidence_b| (Guo et al., ICML 2017, equation 3)."""
    table = reliability(confidence, correct, bins=bins)
    known = table[table[:, 0] > 0]
    return float((known[:, 0] * np.abs(known[:, 1] - known[:, 2])).sum() / known[:, 0].sum())


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of -log p(label), in nats; a probability of 0 counts as the smallest double."""
    p, at = _rows(probabilities, labels)
    return float(-np.log(np.maximum(p[np.arange(len(at)), at], _TINY)).mean())


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over samples of sum_k (p_k - [k = label])^2 (Brier 1950, equation 2), from 0 to 2."""
    p, at = _rows(probabilities, labels)
    return float(((p**2).sum(1) - 2 * p[np.arange(len(at)), at] + 1).mean())


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[DoubleArray, DoubleArray]:
    """Return coverage `[n]` and the share of wrong answers among the most confident, at each coverage.

    El-Yaniv and Wiener, JMLR 11 (2010). Samples of equal confidence are taken together, in expectation.
    """
    sure, wrong = np.asarray(confidence, np.float64), 1.0 - np.asarray(correct, np.float64)
    _, inverse, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    expected = np.bincount(inverse, weights=wrong) / counts
    errors = np.cumsum(expected[np.sort(inverse)])
    taken = np.arange(1, sure.size + 1)
    return taken / sure.size, errors / taken


def area_under_risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean risk over all coverages (AURC; Geifman et al., ICLR 2019, equation 1)."""
    return float(risk_coverage(confidence, correct)[1].mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the T > 0 that minimises the mean of -log softmax(logits / T)[label] (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T: Newton's method on 1 / T, with halved steps. T is kept within 1/20 to 20, which is
    reached where every answer is right, or none is.
    """
    z = np.asarray(logits, np.float64)
    at = np.asarray(labels, np.intp)
    picked = z[np.arange(len(at)), at]
    low, high, inverse = 1 / 20, 20.0, 1.0
    for _ in range(100):
        p = np.exp(log_softmax(z * inverse))
        mean = (p * z).sum(1)
        slope = float((mean - picked).mean())
        curve = float(((p * z * z).sum(1) - mean**2).mean())
        if slope > 0:
            high = inverse
        else:
            low = inverse
        step = inverse - slope / curve if curve > 0 else 0.0
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return 1 / inverse


def conformal_threshold(probabilities: ArrayLike, labels: ArrayLike, *, coverage: float) -> float:
    """Return the threshold on 1 - p(label) whose sets hold the label with at least `coverage`.

    Split conformal: the ceil((n + 1) coverage)-th smallest score (Vovk et al. 2005; Angelopoulos and Bates,
    arXiv 2107.07511, section 1); 1, which takes every class, where n is too small for it.
    """
    p, at = _rows(probabilities, labels)
    scores = np.sort(1 - p[np.arange(len(at)), at])
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def _rows(probabilities: ArrayLike, labels: ArrayLike) -> tuple[DoubleArray, NDArray[np.intp]]:
    p, at = np.asarray(probabilities, np.float64), np.asarray(labels, np.intp)
    if p.ndim != 2 or len(p) != len(at) or not len(at):
        raise ValueError(f"probabilities of shape {p.shape} for {len(at)} labels")
    return p, at
