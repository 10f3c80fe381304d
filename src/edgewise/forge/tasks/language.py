"""Language modelling: perplexity, and which token comes next.

Position i of the logits `[1, t, vocabulary]` predicts token i + 1 of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.divergence import kl_rows
from edgewise.numerics.probabilities import are_probabilities, log_probabilities

IDS = "input_ids"
MASK = "attention_mask"


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one text of t tokens: arrays `[t - 1]`, one entry per predicted token."""

    best: NDArray[np.int64]
    """The likeliest next token."""
    loss: NDArray[np.float64]
    """-log p of the token that really comes next, in nats."""
    following: NDArray[np.int64]
    """That token; -1 for padding."""


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """Next-token prediction. Labels are optional: without them the input itself, one token later, is the target."""

    kind: ClassVar[str] = "language"
    metric: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False

    def predict(self, outputs: Outputs, feeds: Feeds) -> Continuation:
        """Return the likeliest next tokens and the loss of the real ones."""
        tokens = token_input(feeds)
        logits = outputs[0].reshape(-1, outputs[0].shape[-1])
        if len(logits) != len(tokens):
            raise TaskError(
                f"{len(logits)} rows of logits for {len(tokens)} tokens",
                required="logits [1, tokens, vocabulary], one row per input token",
                next_step="choose another task with --task, or write your own (`file.py:Class`)",
            )
        logits, following = logits[:-1], tokens[1:].copy()
        if len(following) and not 0 <= following.min() <= following.max() < logits.shape[-1]:
            raise DataError(
                f"token ids from {following.min()} to {following.max()}",
                required=f"0 to {logits.shape[-1] - 1}, the model's vocabulary",
                next_step="use the tokenizer that belongs to the model",
            )
        with np.errstate(invalid="ignore"):
            log_p = log_probabilities(logits, stored=len(logits) > 0 and are_probabilities(logits))
        loss = np.nan_to_num(-log_p[np.arange(len(following)), following], nan=np.inf, posinf=np.inf)
        mask = feeds.get(MASK)
        if mask is not None and mask.shape == (1, len(tokens)):
            following[mask[0, 1:] == 0] = -1
        return Continuation(best=logits.argmax(-1).astype(np.int64), loss=loss, following=following)

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return exp(mean loss) over all predicted tokens, and how often the likeliest token is the real one.

        A label is the text's token ids `[t]` with negative numbers where the loss shall not count. None
        without any token to predict. Raises DataError for labels that are other tokens than the input's.
        """
        loss, hits = [], []
        for prediction, target in zip(predictions, targets, strict=True):
            counts = prediction.following >= 0
            if target is not None:
                counts = counts & _counted(prediction, target)
            loss.append(prediction.loss[counts])
            hits.append((prediction.best == prediction.following)[counts])
        every = np.concatenate(loss) if loss else np.array([])
        if not every.size:
            return None
        with np.errstate(over="ignore"):
            perplexity = float(np.exp(every.mean()))
        return Score(
            value=perplexity,
            metrics={"perplexity": perplexity, "next_token_top1": float(np.concatenate(hits).mean())},
        )

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_]:
        """Return per predicted token, all texts joined, whether the likeliest one differs."""
        parts = [a.best[a.following >= 0] != b.best[a.following >= 0]
                 for a, b in zip(reference, candidate, strict=True)]  # fmt: skip
        return np.concatenate(parts) if parts else np.zeros(0, np.bool_)

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the mean KL(fp32 || variant) of the next-token distributions, in nats per token."""
        rows = kl_rows(reference[0], candidate[0])
        return float(rows.mean()) if rows.size else 0.0

    def answer(self, prediction: Any) -> str:
        """Return the likeliest next token at the end of the text, by number."""
        return str(prediction.best[-1]) if len(prediction.best) else "nothing"

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: a text has many decisions."""
        return None


def token_input(feeds: Feeds) -> NDArray[np.int64]:
    """Return the token ids `[t]` among a text model's inputs: `input_ids`, or the first integers `[1, t]`."""
    found: Array | None = feeds.get(IDS)
    if found is None:
        found = next((v for k, v in feeds.items() if v.ndim == 2 and v.dtype.kind in "iu" and k != MASK), None)
    if found is None:
        raise TaskError(
            f"none of the inputs {', '.join(feeds)} holds token ids",
            required="an integer input [1, tokens]",
            next_step="choose another task with --task",
        )
    return found.reshape(-1).astype(np.int64)


def _counted(prediction: Continuation, target: Any) -> NDArray[np.bool_]:
    labels = np.asarray(target).reshape(-1)
    length = len(prediction.following) + 1
    if labels.dtype.kind not in "iu" or len(labels) < length:
        raise DataError(
            f"a label is {labels.dtype.name} of length {len(labels)}",
            required=f"the text's {length} token ids, negative where the loss shall not count",
            next_step="leave `y` out: the input itself is then the target",
        )
    mine = labels[1:length]
    if ((mine >= 0) & (prediction.following >= 0) & (mine != prediction.following)).any():
        raise DataError(
            "a label holds other tokens than its input",
            required="the input's own token ids, not shifted, negative where the loss shall not count",
            next_step="leave `y` out: the input itself, one token later, is then the target",
        )
    return np.asarray(mine >= 0, np.bool_)
