"""Anomaly detection: AUROC of a score, which the model gives or which is its reconstruction error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.divergence import comparable, normalised_error
from edgewise.numerics import statistics
from edgewise.runtimes.base import TensorSpec


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """One anomaly score per sample, higher = more anomalous; labels are 0 (normal) and 1. A prediction is a float.

    An output with one element is the score. An output with an input's shape is a reconstruction, and the
    score is its mean squared difference to that input.
    """

    kind: ClassVar[str] = "anomaly"
    metric: ClassVar[str] = "auroc"
    higher_is_better: ClassVar[bool] = True

    def predict(self, outputs: Outputs, feeds: Feeds) -> float:
        """Return the score. One that is not finite counts as most anomalous (infinity): never as normal."""
        first = outputs[0]
        if first.size == 1:
            score = float(first.reshape(-1)[0])
        else:
            source = _reconstructed(first, feeds)
            score = float(((first.astype(np.float64) - source.astype(np.float64)) ** 2).mean())
        return score if np.isfinite(score) else float("inf")

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return the AUROC over the labelled samples; None without both normal and anomalous ones."""
        labelled = [(p, _label(t)) for p, t in zip(predictions, targets, strict=True) if t is not None]
        positive = np.array([label for _, label in labelled], np.bool_)
        if not positive.any() or positive.all():
            return None
        scores = np.array([p for p, _ in labelled])
        value = statistics.auroc(scores[positive], scores[~positive])
        return Score(value=value, metrics={"auroc": value})

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> None:  # noqa: ARG002 - the protocol's
        """Return None: a score decides nothing before someone sets a threshold."""
        return

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return |a - b| / (1 + |a|) of two scores, or the normalised squared error of two reconstructions.

        The first is a difference for probabilities and relative for large scores.
        """
        left, right = reference[0], candidate[0]
        if left.size != 1:
            return normalised_error(left, right)
        if not comparable(left, right):
            return float("inf")
        before, after = float(left.reshape(-1)[0]), float(right.reshape(-1)[0])
        return abs(before - after) / (1 + abs(before))

    def answer(self, prediction: Any) -> str:
        """Return the score."""
        return f"{prediction:.4g}"

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: there is no second answer."""
        return None


def check_outputs(outputs: tuple[TensorSpec, ...], inputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a model whose first output is neither one number nor a reconstruction; raises TaskError."""
    shape = outputs[0].shape if outputs else None
    if shape is not None and all(axis in (1, None) for axis in shape[:1]) and all(axis == 1 for axis in shape[1:]):
        return
    if any(each.shape == shape for each in inputs):
        return
    raise TaskError(
        f"the model's first output has shape {list(shape or ())}",
        required="one number per sample, or the shape of an input (a reconstruction)",
        next_step="choose another task with --task, or write your own (`file.py:Class`)",
    )


def _reconstructed(output: Array, feeds: Feeds) -> Array:
    for values in feeds.values():
        if values.shape == output.shape:
            return values
    raise TaskError(
        f"the output has shape {list(output.shape)}, as no input has",
        required="one number, or a reconstruction of an input",
        next_step="choose another task with --task",
    )


def _label(target: Any) -> bool:
    if isinstance(target, (int, float, np.integer, np.bool_)) and target in (0, 1):
        return bool(target)
    raise DataError(
        f"an anomaly label is {target!r}"[:200],
        required="0 (normal) or 1 (anomalous)",
        next_step="map the labels of your classes to 0 and 1",
    )
