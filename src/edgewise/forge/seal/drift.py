"""What the scores of a variant look like on good data, and how far live inputs may stray from that."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.manifest import DriftReference, PageHinkley
from edgewise.forge.tasks.base import Dataset, Task
from edgewise.forge.tasks.classification import Classification
from edgewise.numerics.drift_rules import largest_gap, rate, shares_of, stability
from edgewise.numerics.probabilities import are_probabilities
from edgewise.numerics.scores import ENERGY_SCORE, MARGIN, channels, energies, extremes, margins, range_names
from edgewise.runtimes.base import Session

WINDOW = 100
KEEP = 0.99
EFFECT = 0.25
"""A mean that moved by so many standard deviations is the least that the Page-Hinkley test looks for."""
SURE = 2.58
"""Standard errors by which the sample's mean may be off: 99 % on both sides."""
_BINS = 10
_FEWEST = 50
_MOST = 1024
_REFERENCES, _DRAWS, _CONFIDENCE = 200, 500, 0.95

Values = NDArray[np.float64]


def references(
    task: Task, session: Session, reference: Session, split: Dataset, *, last: bool, seed: int
) -> tuple[DriftReference, ...]:
    """Return the distributions of a variant's scores on good data: none for less than 50 samples.

    Of a classifier the margin (top-1 less top-2 probability) and, of logits, the energy score; of every input of
    floats the least and the largest value of each channel, the last axis where `last`. A score whose values are
    nearly all alike has none. `reference` is fp32, which tells whether scores are probabilities.
    """
    step = max(1, len(split) // _MOST)
    places = range(0, len(split), step)
    if len(places) < _FEWEST:
        return ()
    rows: list[Values] = []
    stored = isinstance(task, Classification) and _is_stored(reference, split)
    ranges: dict[str, list[Values]] = {}
    for at in places:
        feeds = split[at].feeds
        if isinstance(task, Classification):
            rows.append(session.run(feeds)[0].reshape(-1).astype(np.float64))
        for index, spec in enumerate(session.inputs):
            array = feeds[spec.name]
            if array.dtype.kind != "f":
                continue
            count = channels(array.shape, last=last)
            for name, value in zip(range_names(index, count), extremes(array, count, last=last), strict=True):
                ranges.setdefault(name, []).append(value)
    scores = {name: np.array(values) for name, values in ranges.items()}
    if rows and np.isfinite(np.stack(rows)).all():
        scores = {MARGIN: margins(np.stack(rows), stored=stored), **scores}
        if not stored:
            scores[ENERGY_SCORE] = energies(np.stack(rows))
    found = (reference_of(values, score=name, seed=seed) for name, values in sorted(scores.items()))
    return tuple(each for each in found if each is not None)


def reference_of(values: Values, *, seed: int, score: str = MARGIN, window: int = WINDOW) -> DriftReference | None:
    """Return the reference of good values [n]; None where they are not finite, or part into less than three bins.

    The values are a sample themselves, and a live window differs from it by both chances. So windows and samples are
    drawn, and the cut-offs are those that 95 % of the samples keep `KEEP` of their windows within.
    """
    if not np.isfinite(values).all():
        return None
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    if edges.size < 2:
        return None
    shares = shares_of(values, edges)
    generator = np.random.default_rng(seed)
    samples = generator.multinomial(values.size, shares, _REFERENCES) / values.size
    windows = generator.multinomial(window, shares, (_REFERENCES, _DRAWS)) / window
    expected = samples[:, None, :]
    cutoffs = (
        float(np.quantile(np.quantile(distance(windows, expected), KEEP, axis=1), _CONFIDENCE))
        for distance in (stability, largest_gap)
    )
    return DriftReference(
        score=score,
        edges=tuple(edges.tolist()),
        shares=tuple(shares.tolist()),
        window=window,
        psi_cutoff=next(cutoffs),
        ks_cutoff=next(cutoffs),
        keep=KEEP,
        page_hinkley=page_hinkley(values),
    )


def page_hinkley(values: Values) -> PageHinkley:
    """Return the parameters of the Page-Hinkley test for good values [n] that are not all alike.

    The allowance is a quarter of a standard deviation, and what the sample's own mean may be off by. The rates hold
    for a true mean that is off by that much.
    """
    spread = float(values.std())
    allowance = EFFECT * spread
    return PageHinkley(
        mean=float(values.mean()),
        allowance=allowance + SURE * spread / math.sqrt(values.size),
        rate_up=rate(values, allowance),
        rate_down=rate(-values, allowance),
    )


def _is_stored(reference: Session, split: Dataset) -> bool:
    """Return whether fp32's scores are probabilities, from a few samples."""
    few = range(0, len(split), max(1, len(split) // 8))
    return are_probabilities(np.stack([reference.run(split[at].feeds)[0].reshape(-1) for at in few]))
