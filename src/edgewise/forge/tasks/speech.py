"""Speech recognition in one call: word and character error rates of CTC logits or of token ids.

Models that are called in a loop (an encoder and a decoder with a cache) need a task of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.divergence import kl_rows
from edgewise.forge.tasks.vocabulary import Vocabulary
from edgewise.numerics import statistics
from edgewise.numerics.probabilities import are_probabilities, log_probabilities

_NOT_IN_WORDS = re.compile(r"[^\w' ]+|_")


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """One text per sample. A prediction is that text, or a tuple of token ids where there is no vocabulary.

    The first output is `[1, frames, tokens]` of floats, decoded greedily (CTC, Graves et al. 2006: best
    token per frame, repeats merged, blanks dropped), or integers `[1, tokens]` that are the ids already.
    """

    kind: ClassVar[str] = "speech"
    higher_is_better: ClassVar[bool] = False

    vocabulary: Vocabulary | None = None

    @property
    def metric(self) -> str:
        """`wer`, or `ter` (token error rate) without a vocabulary."""
        return "wer" if self.vocabulary else "ter"

    def predict(self, outputs: Outputs, feeds: Feeds) -> str | tuple[int, ...]:  # noqa: ARG002 - the protocol's
        """Return the text."""
        first = outputs[0]
        if first.dtype.kind in "iu":
            ids = [int(each) for each in first.reshape(-1) if each >= 0]
        else:
            frames = _frames(first)
            ids = ctc_ids(frames, blank=self._blank(frames.shape[1]))
        return self.vocabulary.decode(ids) if self.vocabulary else tuple(ids)

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return errors per word and per character over all texts (or per token); None without labels.

        Both sides are lower-cased, punctuation goes except for apostrophes, and spaces are merged. A
        target without a vocabulary is an array of ids, negative numbers are padding.
        """
        pairs = [(p, t) for p, t in zip(predictions, targets, strict=True) if t is not None]
        if not pairs:
            return None
        if not self.vocabulary:
            ter = _error_rate([(_ids(target), list(prediction)) for prediction, target in pairs])
            return Score(value=ter, metrics={"ter": ter})
        texts = [(words(_text(target)), words(prediction)) for prediction, target in pairs]
        wer = _error_rate(texts)
        cer = _error_rate([(list(" ".join(truth)), list(" ".join(guess))) for truth, guess in texts])
        return Score(value=wer, metrics={"wer": wer, "cer": cer})

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_]:
        """Return per sample whether the text differs."""
        return np.array([a != b for a, b in zip(reference, candidate, strict=True)], np.bool_)

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the mean KL(fp32 || variant) per frame, in nats; of ids, the edits per reference token."""
        left, right = reference[0], candidate[0]
        if left.dtype.kind in "iu":
            before, after = left.reshape(-1).tolist(), right.reshape(-1).tolist()
            return float(statistics.edit_distance(before, after)) / max(1, len(before))
        rows = kl_rows(left, right)
        return float(rows.mean()) if rows.size else 0.0

    def answer(self, prediction: Any) -> str:
        """Return the text."""
        return prediction if isinstance(prediction, str) else " ".join(map(str, prediction))

    def margin(self, outputs: Outputs) -> float | None:
        """Return the smallest gap between the best two tokens of a frame, as probabilities; None for ids."""
        first = outputs[0]
        if first.dtype.kind in "iu" or not first.size or not np.isfinite(first).all():
            return None
        frames = _frames(first)
        top = np.sort(np.exp(log_probabilities(frames, stored=are_probabilities(frames))), axis=-1)
        return float((top[:, -1] - top[:, -2]).min())

    def _blank(self, tokens: int) -> int:
        return self.vocabulary.blank(tokens) if self.vocabulary else 0


def ctc_ids(frames: Array, *, blank: int) -> list[int]:
    """Return the token ids of greedy CTC decoding of `[frames, tokens]`."""
    best = frames.argmax(1)
    changed = np.concatenate([[True], best[1:] != best[:-1]]) if len(best) else np.zeros(0, np.bool_)
    return [int(token) for token in best[changed] if token != blank]


def words(text: str) -> list[str]:
    """Return a text's words in lower case, without punctuation; apostrophes stay, as in "don't"."""
    return _NOT_IN_WORDS.sub(" ", text.lower()).split()


def _frames(first: Array) -> Array:
    """Return the logits `[frames, tokens]`; raises TaskError for outputs of another shape."""
    if first.ndim != 3 or first.shape[2] < 2:
        raise TaskError(
            f"the model's first output has shape {list(first.shape)}",
            required="CTC logits [1, frames, tokens] of floats, or token ids [1, tokens]",
            next_step="write a task of your own (`file.py:Class`) that decodes the outputs",
        )
    return first.reshape(first.shape[1:])


def _error_rate(pairs: Sequence[tuple[list[Any], list[Any]]]) -> float:
    """Return edits / reference length over all pairs (truth, guess)."""
    edits = sum(int(statistics.edit_distance(truth, guess)) for truth, guess in pairs)
    return edits / max(1, sum(len(truth) for truth, _ in pairs))


def _text(target: Any) -> str:
    if isinstance(target, str):
        return target
    raise DataError(
        f"a speech label is {target!r}"[:200],
        required="the text that is spoken",
        next_step="give a table with the columns file,text",
    )


def _ids(target: Any) -> list[int]:
    values = np.asarray(target)
    if values.dtype.kind not in "iu":
        raise DataError(
            f"a speech label is {target!r}"[:200],
            required="token ids, because the model's vocabulary is not known",
            next_step="name it: [task.text] tokenizer = a tokenizer.json, vocab.json or a list of tokens",
        )
    return [int(each) for each in values.reshape(-1) if each >= 0]
