"""Distances between two outputs that several tasks share. All are 0 for equal outputs.

A candidate with outputs that are not finite, or of another shape, is infinitely far away: a broken
variant must lose every comparison instead of spreading NaN through the search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.tasks.base import Array
from edgewise.numerics import distance
from edgewise.numerics.probabilities import are_probabilities, log_probabilities


def comparable(reference: Array, candidate: Array) -> bool:
    """Return whether the candidate has the reference's shape and only finite values."""
    return reference.shape == candidate.shape and bool(np.isfinite(candidate).all())


def kl_rows(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """Return KL(reference || candidate) in nats of every row: sum_k p_k (log p_k - log q_k).

    Both are logits or both are probabilities `[..., classes]`; the reference decides which, because a
    quantized softmax need not sum to 1. Rows that cannot be compared are infinite.
    """
    if not comparable(reference, candidate):
        return np.full(reference.shape[:-1], np.inf)
    stored = are_probabilities(reference)
    log_p = log_probabilities(reference, stored=stored)
    log_q = log_probabilities(candidate, stored=stored)
    return np.asarray(np.maximum((np.exp(log_p) * (log_p - log_q)).sum(-1), 0.0), np.float64)


def normalised_error(reference: Array, candidate: Array) -> float:
    """Return the mean over last-axis columns of e / (1 + e), e the squared error over the column's variance.

    Columns of different units count alike, and a column that is lost (or almost constant, so that any
    error is large beside its variance) counts 1 at most. An output of one row `[1, n]` is one column.
    Integers are compared by the share that differs.
    """
    if not comparable(reference, candidate):
        return float("inf")
    if reference.size == 0:
        return 0.0
    if reference.dtype.kind in "iub":
        return float((reference != candidate).mean())
    columns = reference.shape[-1] if reference.ndim > 1 and reference.size != reference.shape[-1] else 1
    errors = distance.normalised_mse(reference.reshape(-1, columns), candidate.reshape(-1, columns))
    return float((errors / (1 + errors)).mean())
