"""Embeddings: whether the variant keeps similar things similar.

With labelled pairs the metric is Spearman's correlation of the cosines with what people said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.divergence import comparable
from edgewise.numerics import statistics

MASK = "attention_mask"
FEWEST_PAIRS = 3
_TIE = 1e-6
"""Cosines closer than this are equal in float32: a duplicate of the neighbour is the same neighbour."""
_BLOCK = 512


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The target of one half of a pair: which pair it belongs to and how alike people found it."""

    index: int
    score: float


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per sample. A prediction is that vector at unit length, float32 `[d]`."""

    kind: ClassVar[str] = "embedding"
    metric: ClassVar[str] = "spearman"
    higher_is_better: ClassVar[bool] = True

    output: int = 0
    """Which output is the embedding: `[1, d]`, or token vectors `[1, tokens, d]` that are averaged."""

    def predict(self, outputs: Outputs, feeds: Feeds) -> NDArray[np.float32]:
        """Return the unit vector; token vectors are averaged where the attention mask is set."""
        vectors = outputs[self.output]
        mask = feeds.get(MASK)
        if vectors.ndim == 3 and mask is not None and mask.shape == vectors.shape[:2]:
            weights = mask[..., None].astype(np.float64)
            return _unit((vectors * weights).sum(1) / np.maximum(weights.sum(1), 1)).astype(np.float32)
        return _unit(_pooled(vectors)).astype(np.float32)

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return Spearman's correlation of the pairs' cosines and scores, over pairs with both halves here.

        None without at least three pairs of different scores. Vectors that are all alike correlate with nothing: 0.
        """
        halves: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
        known: dict[int, float] = {}
        for prediction, target in zip(predictions, targets, strict=True):
            if target is None:
                continue
            if not isinstance(target, Pair):
                raise DataError(
                    f"an embedding's label is {target!r}"[:200],
                    required="one score per pair of samples (an npz with `y` half as long as `x`, or a tsv)",
                    next_step="leave the labels out, or store the samples of a pair one after the other",
                )
            halves[target.index].append(prediction.astype(np.float64))
            known[target.index] = target.score
        whole = [index for index, vectors in halves.items() if len(vectors) == 2]
        people = np.array([known[index] for index in whole])
        if len(whole) < FEWEST_PAIRS or (people == people[0]).all():
            return None
        model = np.array([halves[index][0] @ halves[index][1] for index in whole])
        value = 0.0 if (model == model[0]).all() else statistics.spearman(model, people)
        return Score(value=value, metrics={"spearman": value})

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_]:
        """Return per sample whether its nearest neighbour among the others differs; ties are no flips."""
        if len(reference) < 2:
            return np.zeros(len(reference), np.bool_)
        left, right = np.stack(reference), np.stack(candidate)
        blocks = [_neighbours_differ(left, right, start) for start in range(0, len(left), _BLOCK)]
        return np.concatenate(blocks)

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return 1 - cosine of the two vectors, as |u - v|^2 / 2 of unit vectors, which does not cancel near 0.

        Token vectors are averaged over all tokens here, because the mask is not at hand: pad only where the
        model's length is fixed.
        """
        left, right = reference[self.output], candidate[self.output]
        if not comparable(left, right):
            return float("inf")
        return float(((_unit(_pooled(left)) - _unit(_pooled(right))) ** 2).sum() / 2)

    def answer(self, prediction: Any) -> str:
        """Return the size of the vector: it has no top answer."""
        return f"vector of {len(prediction)}"

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: a vector alone is neither sure nor unsure."""
        return None


def _pooled(vectors: Array) -> Array:
    return vectors.mean(1, dtype=np.float64) if vectors.ndim == 3 else vectors


def _unit(vector: Array) -> NDArray[np.float64]:
    """Return a flat vector of length 1; one that is zero or not finite becomes zero, alike to nothing."""
    flat = np.asarray(vector, np.float64).reshape(-1)
    length = np.linalg.norm(flat)
    return flat / length if 0 < length < np.inf else np.zeros_like(flat)


def _neighbours_differ(left: Array, right: Array, start: int) -> NDArray[np.bool_]:
    """Return whether the nearest neighbours differ, for a block of rows."""
    rows = np.arange(start, min(start + _BLOCK, len(left)))
    near = []
    for vectors in (left, right):
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        near.append((cosines, cosines.argmax(1)))
    (before, mine), (after, theirs) = near
    at = np.arange(len(rows))
    lost = before[at, theirs] < before[at, mine] - _TIE
    gone = after[at, mine] < after[at, theirs] - _TIE
    return np.asarray(lost & gone, np.bool_)
