"""What both models believe: class probabilities of the samples whose outputs were kept."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.tasks.base import Outputs
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.probabilities import are_probabilities, log_probabilities

DoubleArray = NDArray[np.float64]


class Beliefs(msgspec.Struct, frozen=True, kw_only=True):
    """Log probabilities `[n, classes]` of both models, labels `[n]` (-1 without one), and which test samples."""

    reference: DoubleArray
    variant: DoubleArray
    labels: NDArray[np.int64]
    samples: NDArray[np.intp]

    def labelled(self) -> Beliefs:
        """Return those of the samples that have a label."""
        has = self.labels >= 0
        return Beliefs(
            reference=self.reference[has],
            variant=self.variant[has],
            labels=self.labels[has],
            samples=self.samples[has],
        )


def beliefs_of(subject: Subject) -> Beliefs | None:
    """Return the beliefs of a classifier over the samples whose outputs are finite and kept, or None."""
    pairs = subject.pairs
    if not isinstance(subject.task, Classification) or not pairs.held:
        return None
    before, after = _rows(pairs.reference_outputs), _rows(pairs.variant_outputs)
    finite = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    if not finite.any():
        return None
    stored = are_probabilities(before[finite])
    targets = [-1 if each is None else int(each) for each in pairs.targets[: pairs.held]]
    return Beliefs(
        reference=log_probabilities(before[finite], stored=stored),
        variant=log_probabilities(after[finite], stored=stored),
        labels=np.array(targets, np.int64)[finite],
        samples=np.flatnonzero(finite),
    )


def log_probabilities_of(outputs: Sequence[Outputs], *, stored: bool) -> DoubleArray:
    """Return log probabilities `[n, classes]` of outputs; `stored` where a softmax is in the graph."""
    return log_probabilities(_rows(outputs), stored=stored)


def _rows(outputs: Sequence[Outputs]) -> DoubleArray:
    return np.stack([each[0].reshape(-1).astype(np.float64) for each in outputs])
