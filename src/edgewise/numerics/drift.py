"""Whether two samples come from one distribution, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

DoubleArray = NDArray[np.float64]

SOME, MUCH = 0.1, 0.25
"""Population stability index from which a shift is called moderate, and major (Siddiqi, 2006)."""


def stability_index(reference: ArrayLike, other: ArrayLike, *, bins: int = 10) -> float:
    """Return the population stability index: sum over bins of (q_b - p_b) ln(q_b / p_b).

    Siddiqi, "Credit Risk Scorecards" (2006), chapter 10; it is the symmetric Kullback-Leibler divergence. Bins hold
    equal shares of `reference`; half a count is added to each, so that an empty one is finite. Raises ValueError
    where a side is empty.
    """
    a, b = (np.asarray(each, np.float64).reshape(-1) for each in (reference, other))
    if not (a.size and b.size):
        raise ValueError("no values")
    # Repeated values make equal edges, and none below: those bins are one.
    edges = np.unique(np.quantile(a, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    edges = edges[edges > a.min()]
    p, q = (_shares(np.searchsorted(edges, each, side="right"), edges.size + 1) for each in (a, b))
    return float(np.sum((q - p) * np.log(q / p)))


def holm(p_values: Sequence[float]) -> DoubleArray:
    """Return p-values corrected for their number: Holm, Scand. J. Statist. 6 (1979), page 65."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _shares(places: NDArray[np.int64], bins: int) -> DoubleArray:
    counts = np.bincount(places, minlength=bins) + 0.5
    return np.asarray(counts / counts.sum())
