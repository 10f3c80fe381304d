"""Classification: top-1 (and top-5) accuracy of the first output, logits or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.divergence import kl_rows
from edgewise.numerics.probabilities import are_probabilities, log_probabilities

TOP = 5
TOP5_CLASSES = 10
"""Top-5 says nothing with fewer classes than this."""
NO_ANSWER = -1
"""The class of outputs that are not finite: wrong for every label, a flip from every class."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """One class per sample. A prediction is the best classes, best first: int64 `[min(5, classes)]`."""

    kind: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top1"
    higher_is_better: ClassVar[bool] = True

    classes: int
    names: tuple[str, ...] = ()
    """Class names for reports; without them classes are numbers."""

    def predict(self, outputs: Outputs, feeds: Feeds) -> NDArray[np.int64]:  # noqa: ARG002 - the protocol's
        """Return the best classes; the lower number wins a tie, as with argmax."""
        scores = _row(outputs)
        if not np.isfinite(scores).all():
            return np.full(min(TOP, scores.size), NO_ANSWER, np.int64)
        return np.argsort(-scores, kind="stable")[:TOP].astype(np.int64)

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return top-1, and top-5 with at least ten classes, over the samples that have a label."""
        labelled = [
            (prediction, int(target))
            for prediction, target in zip(predictions, targets, strict=True)
            if target is not None
        ]
        if not labelled:
            return None
        best = np.stack([prediction for prediction, _ in labelled])
        labels = np.array([label for _, label in labelled], np.int64)
        metrics = {"top1": float((best[:, 0] == labels).mean())}
        if self.classes >= TOP5_CLASSES:
            metrics["top5"] = float((best == labels[:, None]).any(1).mean())
        return Score(value=metrics["top1"], metrics=metrics)

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_]:
        """Return per sample whether the top class differs."""
        return np.array([a[0] != b[0] for a, b in zip(reference, candidate, strict=True)], np.bool_)

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return KL(fp32 || variant) of the class distributions, in nats."""
        return float(kl_rows(_row(reference), _row(candidate)))

    def answer(self, prediction: Any) -> str:
        """Return the top class by name, or by number."""
        best = int(prediction[0])
        return self.names[best] if 0 <= best < len(self.names) else str(best)

    def margin(self, outputs: Outputs) -> float | None:
        """Return the probability of the best class minus that of the second; None if not finite."""
        scores = _row(outputs)
        if not np.isfinite(scores).all():
            return None
        top = np.sort(np.exp(log_probabilities(scores, stored=are_probabilities(scores))))[-2:]
        return float(top[1] - top[0])


def _row(outputs: Outputs) -> Array:
    """Return the class scores `[classes]` of `[1, classes]` or `[1, classes, 1, 1]`."""
    return outputs[0].reshape(-1).astype(np.float64)
