"""How sure a classifier is of one answer, by what was fitted on the answering variant's own outputs.

Probabilities are a softmax at the variant's temperature (Guo et al., ICML 2017, section 4.2). The prediction set of
split conformal prediction holds every class whose nonconformity 1 - p is within the threshold (Angelopoulos and Bates,
arXiv:2107.07511, section 1); over good data it holds the right class as often as its coverage says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgewise.contracts.verification import VariantCalibration
from edgewise.numerics.probabilities import PROBABILITY_FLOOR
from edgewise.runtimes.base import Array

CLASSIFICATION = "classification"
_ROUNDING = 1e-12


class Confidence(NamedTuple):
    """Of one answer: the best class, its probability, and how many classes the prediction set holds.

    `set_size` is None where the variant has no conformal threshold of the coverage asked for.
    """

    best: int
    probability: float
    set_size: int | None

    @property
    def is_sure(self) -> bool | None:
        """Whether the set holds one class alone; None where there is no set.

        An empty set is an input that no class conforms with, one of several is an input that the model cannot decide.
        """
        return None if self.set_size is None else self.set_size == 1


class Believer:
    """Reads the confidence out of a variant's first output."""

    def __init__(self, calibration: VariantCalibration, *, output: str, stored: bool) -> None:
        """Take the name of the output with the class scores; `stored` where they are probabilities already."""
        self._temperature = calibration.temperature or 1.0
        self._thresholds = {float(coverage): threshold for coverage, threshold in calibration.conformal.items()}
        self._output = output
        self._stored = stored

    @property
    def coverages(self) -> tuple[float, ...]:
        """What there are thresholds for."""
        return tuple(sorted(self._thresholds))

    def confidence(self, outputs: Mapping[str, Array], *, coverage: float) -> Confidence | None:
        """Return the confidence, or None where the scores are not finite: they say nothing."""
        scores = outputs[self._output].reshape(-1).astype(np.float64)
        if self._stored:
            scores = np.log(np.maximum(scores, 0.0) + PROBABILITY_FLOOR)
        if not np.isfinite(scores).all():
            return None
        best = int(scores.argmax())
        powers = np.exp((scores - scores[best]) / self._temperature)
        total = float(powers.sum())
        threshold = self._thresholds.get(coverage)
        # 1 - p <= threshold, without dividing every power by the total
        size = None if threshold is None else int(np.count_nonzero(powers >= (1 - threshold - _ROUNDING) * total))
        return Confidence(best, 1.0 / total, size)
