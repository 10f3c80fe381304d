"""What a classifier believes: log probabilities from its scores, whichever of the two forms they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.numerics.statistics import log_softmax

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from summing to 1 (float16 softmax over 1,000 classes)."""
PROBABILITY_FLOOR = 1e-6
"""Added to stored probabilities: an 8-bit softmax has exact zeros, whose logarithm is not finite."""


def are_probabilities(rows: NDArray[Any]) -> bool:
    """Return whether every row (last axis) is non-negative and sums to 1: a softmax is in the graph."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(-1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all())


def log_probabilities(rows: NDArray[Any], *, stored: bool) -> NDArray[np.float64]:
    """Return log probabilities over the last axis, of logits or (`stored`) of probabilities.

    Stored ones are lifted by PROBABILITY_FLOOR and renormalised: a quantized softmax neither sums
    to 1 nor keeps small values.
    """
    values = np.asarray(rows, np.float64)
    if not stored:
        return log_softmax(values)
    lifted = np.maximum(values, 0) + PROBABILITY_FLOOR
    return np.asarray(np.log(lifted / lifted.sum(-1, keepdims=True)), np.float64)
