"""What a variant's confidence looks like on good data, and how far a window of live inputs may stray from that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.manifest import DriftReference
from edgewise.forge.tasks.base import Dataset, Task
from edgewise.runtimes.base import Session

MARGIN = "margin"
WINDOW = 100
KEEP = 0.99
_BINS = 10
_FEWEST = 50
_MOST = 1024
_DRAWS = 2000
_SMALLEST_SHARE = 1e-4
"""Stands for an empty bin, whose logarithm would be infinite."""


def margin_reference(task: Task, session: Session, split: Dataset, *, seed: int) -> DriftReference | None:
    """Return the distribution of the top-1 minus top-2 probability, or None where a task has no such score.

    None too for less than 50 samples, and where nearly all margins are alike.
    """
    step = max(1, len(split) // _MOST)
    margins = [task.margin(session.run(split[at].feeds)) for at in range(0, len(split), step)]
    known = np.array([each for each in margins if each is not None and np.isfinite(each)])
    return reference_of(known, seed=seed) if known.size == len(margins) >= _FEWEST else None


def reference_of(values: NDArray[np.float64], *, seed: int, window: int = WINDOW) -> DriftReference | None:
    """Return the reference of good values [n]; cut-offs are the KEEP quantile over windows drawn from themselves."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    if edges.size < 2:
        return None
    shares = _shares(values, edges)
    draws = np.random.default_rng(seed).choice(values, (_DRAWS, window))
    found = [_shares(row, edges) for row in draws]
    return DriftReference(
        score=MARGIN,
        edges=tuple(edges.tolist()),
        shares=tuple(shares.tolist()),
        window=window,
        psi_cutoff=float(np.quantile([_psi(row, shares) for row in found], KEEP)),
        ks_cutoff=float(np.quantile([_ks(row, shares) for row in found], KEEP)),
        keep=KEEP,
    )


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=edges.size + 1)
    return counts / values.size


def _psi(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    p, q = np.maximum(found, _SMALLEST_SHARE), np.maximum(expected, _SMALLEST_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


def _ks(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.max(np.abs(np.cumsum(found - expected))))
