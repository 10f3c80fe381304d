"""The KL divergence search behind `ranges.entropy`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

# Candidates between the fewest bins and all of them.
_CANDIDATES = 128
# What an empty bin gets before the logarithm, as in onnxruntime's smooth_distribution.
_SMOOTHING = 1e-4


def entropy_threshold(magnitudes: DoubleArray, levels: int) -> float:
    """Return the threshold, in bins, whose quantized distribution diverges least from `magnitudes` [m].

    For a candidate of i bins the reference P is the first i bins with everything beyond added to the
    last; Q is the first i bins merged into `levels` groups and each group spread evenly over its
    bins that are not empty. With at most as many bins as levels nothing is lost by keeping them all.
    """
    occupied = np.flatnonzero(magnitudes)
    size = int(occupied[-1]) + 1 if occupied.size else magnitudes.size
    if size <= levels:
        return float(magnitudes.size)
    candidates = np.unique(np.linspace(levels, size, _CANDIDATES).round().astype(np.intp))
    beyond = magnitudes.sum() - np.cumsum(magnitudes)
    losses = [_divergence(magnitudes[:i], float(beyond[i - 1]), levels) for i in candidates]
    best = int(candidates[int(np.argmin(losses))])
    return float(magnitudes.size if best == size else best)


def _divergence(kept: DoubleArray, beyond: float, levels: int) -> float:
    """Return KL(P || Q) in nats for the bins `kept` [i] and the mass `beyond` them."""
    # Groups of as equal a size as i allows; i need not be a multiple of `levels`.
    starts = -(-np.arange(levels) * kept.size // levels)
    full = kept > 0
    mass = np.add.reduceat(kept, starts)
    occupied = np.add.reduceat(full.astype(np.float64), starts)
    spread = np.repeat(mass / np.maximum(occupied, 1.0), np.diff(starts, append=kept.size))
    p = kept.copy()
    p[-1] += beyond
    p, q = _smoothed(p), _smoothed(spread * full)
    return float(np.dot(p, np.log(p / q)))


def _smoothed(counts: DoubleArray) -> DoubleArray:
    """Return `counts` as a distribution without zeros: empty bins take a little from the others."""
    total = counts.sum()
    if total == 0:
        return np.full(counts.size, 1.0 / counts.size)
    distribution = counts / total
    empty = counts == 0
    distribution[empty] = _SMOOTHING / counts.size
    return np.asarray(distribution / distribution.sum())
