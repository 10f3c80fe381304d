from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.tasks.language import Language

TASK = Language()
WORDS = 11


def text(seed: int, length: int = 9) -> tuple[Array, Feeds]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (1, length, WORDS)).astype(np.float32)
    return logits, {"input_ids": generator.integers(0, WORDS, (1, length))}


def plain_losses(logits: Array, ids: Array) -> Array:
    p = np.exp(logits[0].astype(np.float64))
    p /= p.sum(1, keepdims=True)
    return np.array([-np.log(p[i, ids[0, i + 1]]) for i in range(len(p) - 1)])


def test_perplexity_is_over_all_tokens_of_all_texts() -> None:
    texts = [text(0), text(1, 4)]
    predictions = [TASK.predict((logits,), feeds) for logits, feeds in texts]
    losses = np.concatenate([plain_losses(logits, feeds["input_ids"]) for logits, feeds in texts])
    hits = [logits[0, :-1].argmax(1) == feeds["input_ids"][0, 1:] for logits, feeds in texts]
    score = TASK.score(predictions, [None, None])
    assert score is not None
    assert score.value == pytest.approx(np.exp(losses.mean()))
    assert score.metrics["next_token_top1"] == pytest.approx(np.concatenate(hits).mean())


def test_padding_does_not_count() -> None:
    logits, feeds = text(0)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0]])
    padded = TASK.score([TASK.predict((logits,), {**feeds, "attention_mask": mask})], [None])
    cut = TASK.score([TASK.predict((logits[:, :5],), {"input_ids": feeds["input_ids"][:, :5]})], [None])
    assert padded == cut


def test_labels_leave_out_what_is_negative() -> None:
    logits, feeds = text(0)
    labels = feeds["input_ids"][0].copy()
    labels[:4] = -100
    score = TASK.score([TASK.predict((logits,), feeds)], [labels])
    assert score is not None
    assert score.value == pytest.approx(np.exp(plain_losses(logits, feeds["input_ids"])[3:].mean()))


def test_other_labels_are_refused() -> None:
    logits, feeds = text(0)
    prediction = TASK.predict((logits,), feeds)
    for label in ((feeds["input_ids"][0] + 1) % WORDS, np.zeros(3, np.int64), np.zeros(9)):
        with pytest.raises(DataError, match="label"):
            TASK.score([prediction], [label])


def test_inputs_that_do_not_fit_are_refused() -> None:
    logits, feeds = text(0)
    with pytest.raises(TaskError, match="token ids"):
        TASK.predict((logits,), {"x": np.zeros((1, 9))})
    with pytest.raises(TaskError, match="rows of logits"):
        TASK.predict((logits[:, :3],), feeds)
    with pytest.raises(DataError, match="vocabulary"):
        TASK.predict((logits,), {"input_ids": np.full((1, 9), WORDS)})


def test_the_first_integers_are_the_tokens_where_none_is_named_so() -> None:
    logits, feeds = text(0)
    again = TASK.predict((logits,), {"attention_mask": np.ones((1, 9), int), "ids": feeds["input_ids"]})
    assert TASK.score([again], [None]) == TASK.score([TASK.predict((logits,), feeds)], [None])


def test_one_token_predicts_nothing() -> None:
    logits, feeds = text(0, 1)
    prediction = TASK.predict((logits,), feeds)
    assert TASK.score([prediction], [None]) is None
    assert TASK.flips([prediction], [prediction]).tolist() == []
    assert TASK.answer(prediction) == "nothing"


def test_a_broken_variant_has_infinite_perplexity() -> None:
    logits, feeds = text(0)
    score = TASK.score([TASK.predict((np.full_like(logits, np.nan),), feeds)], [None])
    assert score is not None
    assert score.value == np.inf
    assert TASK.divergence((logits,), (np.full_like(logits, np.nan),)) == np.inf


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_flips_are_per_token_and_symmetric(one: int, two: int) -> None:
    (logits, feeds), other = text(one), text(two)[0]
    a, b = TASK.predict((logits,), feeds), TASK.predict((other,), feeds)
    assert TASK.flips([a, a], [b, a]).tolist() == TASK.flips([b, a], [a, a]).tolist()
    assert TASK.flips([a, a], [b, a]).tolist()[:8] == (logits.argmax(-1) != other.argmax(-1))[0, :-1].tolist()
    assert TASK.divergence((logits,), (logits.copy(),)) == 0
    assert TASK.divergence((logits,), (other,)) >= 0
