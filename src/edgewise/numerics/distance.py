"""How far a candidate's output is from the reference's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewise.numerics.statistics import log_softmax

_TINY = np.finfo(np.float64).tiny


class SqnrAccumulator:
    """The signal-to-quantization-noise ratio of a stream of (reference, candidate) pairs."""

    def __init__(self) -> None:
        """Start without signal or noise."""
        self.signal = 0.0
        """Sum of the squares of the reference."""
        self.noise = 0.0
        """Sum of the squares of the differences."""

    def update(self, reference: ArrayLike, candidate: ArrayLike) -> None:
        """Add a pair of equal shape. Raises ValueError where the shapes differ."""
        r, c = _pair(reference, candidate)
        r, c = r.reshape(-1), c.reshape(-1)
        # Reference and difference in float64: a float32 sum of millions of squares loses digits, and
        # candidates that agree to the last bits would all look alike.
        self.signal += float(np.dot(r, r))
        difference = r - c
        self.noise += float(np.dot(difference, difference))

    def merge(self, other: SqnrAccumulator) -> SqnrAccumulator:
        """Return the accumulator of both streams."""
        merged = SqnrAccumulator()
        merged.signal, merged.noise = self.signal + other.signal, self.noise + other.noise
        return merged

    @property
    def db(self) -> float:
        """10 log10(signal / noise): inf without noise, -inf with noise but no signal, nan where not finite."""
        if not (math.isfinite(self.signal) and math.isfinite(self.noise)):
            return math.nan
        if self.noise == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))


def sqnr_db(reference: ArrayLike, candidate: ArrayLike) -> float:
    """Return 10 log10(sum r^2 / sum (r - c)^2), in decibel; inf where they are equal.

    -inf where the reference is all zero and the candidate is not; nan where a value is not finite.
    Raises ValueError where the shapes differ.
    """
    accumulator = SqnrAccumulator()
    accumulator.update(reference, candidate)
    return accumulator.db


def cosine(reference: ArrayLike, candidate: ArrayLike, *, axis: int | None = None) -> Any:
    """Return the cosine similarity of the whole arrays (a float), or along `axis` (an array).

    Two zero vectors are alike (1), a zero and another are not (0).
    """
    r, c = _pair(reference, candidate)
    if axis is None:
        return float(_cosine(r.reshape(-1), c.reshape(-1), -1))
    return _cosine(r, c, axis)


def kl_divergence(reference: ArrayLike, candidate: ArrayLike, *, logits: bool = True) -> float:
    """Return the mean KL(reference || candidate), in nats, of distributions along the last axis.

    `logits` says that the values go through a softmax first; otherwise they are probabilities, and
    a candidate's 0 counts as the smallest normal float64.
    """
    r, c = _pair(reference, candidate)
    if logits:
        log_r, log_c = log_softmax(r), log_softmax(c)
        r = np.exp(log_r)
    else:
        log_r, log_c = np.log(np.maximum(r, _TINY)), np.log(np.maximum(c, _TINY))
    return max(float(np.mean(np.sum(r * (log_r - log_c), axis=-1))), 0.0)


def normalised_mse(reference: ArrayLike, candidate: ArrayLike) -> NDArray[np.float64]:
    """Return, for each column of the last axis, the mean squared error over the reference's variance.

    So columns of different units (boxes, scores, coordinates) may be averaged. A column that is constant
    in the reference is divided by its square, or by 1 where it is 0.
    """
    r, c = _pair(reference, candidate)
    r, c = r.reshape(-1, r.shape[-1]), c.reshape(-1, c.shape[-1])
    errors = np.mean((r - c) ** 2, axis=0)
    variance, square = r.var(axis=0), np.mean(r**2, axis=0)
    # Rounding leaves a constant column a variance of about 1e-32 of its square.
    scale = np.where(variance > 1e-12 * square, variance, np.where(square > 0, square, 1.0))
    return np.asarray(errors / scale)


def _cosine(r: NDArray[np.float64], c: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    norm_r, norm_c = np.linalg.norm(r, axis=axis), np.linalg.norm(c, axis=axis)
    product = norm_r * norm_c
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.sum(r * c, axis=axis) / product
    return np.where(product > 0, np.clip(value, -1.0, 1.0), np.where(norm_r == norm_c, 1.0, 0.0))


def _pair(reference: ArrayLike, candidate: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, c = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if r.shape != c.shape:
        raise ValueError(f"shapes {r.shape} and {c.shape} differ")
    return r, c
