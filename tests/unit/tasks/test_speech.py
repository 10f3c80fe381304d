from __future__ import annotations

import pickle  # noqa: TID251 - tasks travel to worker processes
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array
from edgewise.forge.tasks.speech import Speech, ctc_ids, words
from edgewise.forge.tasks.vocabulary import Vocabulary, read_vocabulary

LETTERS = Vocabulary(tokens=("<pad>", "|", "a", "b", "c"))
TASK = Speech(vocabulary=LETTERS)
IDS = Speech()


def frames(*tokens: int, width: int = 5) -> tuple[Array, ...]:
    """Return CTC logits that say these tokens, frame by frame."""
    return (np.eye(width, dtype=np.float32)[None, list(tokens)] * 9,)


def test_greedy_decoding_merges_repeats_and_drops_blanks() -> None:
    assert ctc_ids(frames(2, 2, 0, 2, 3, 3, 0)[0][0], blank=0) == [2, 2, 3]
    assert ctc_ids(np.zeros((0, 5)), blank=0) == []
    assert TASK.predict(frames(2, 0, 2, 1, 3, 4, 1, 1, 2), {}) == "aa bc a"


def test_word_and_character_error_rates_over_all_texts() -> None:
    score = TASK.score(["a b c", "abc"], ["A b, d!", "abc abc"])
    assert score is not None
    assert score.value == pytest.approx(2 / 5)
    assert score.metrics == pytest.approx({"wer": 2 / 5, "cer": (1 + 4) / (5 + 7)})
    assert TASK.score(["a"], [None]) is None
    assert TASK.metric == "wer"


def test_words_keep_apostrophes_only() -> None:
    assert words("Don't  STOP -- at_5 o'clock.") == ["don't", "stop", "at", "5", "o'clock"]


def test_without_a_vocabulary_ids_are_compared() -> None:
    guess = IDS.predict((np.array([[2, 3, 3, -1]]),), {})
    assert guess == (2, 3, 3)
    score = IDS.score([guess], [np.array([2, 3, 4, 4, -1])])
    assert score is not None
    assert score.metrics == {"ter": 0.5}
    assert IDS.metric == "ter"
    with pytest.raises(DataError, match="vocabulary is not known"):
        IDS.score([guess], ["text"])


def test_text_is_wanted_where_there_is_a_vocabulary() -> None:
    with pytest.raises(DataError, match="text that is spoken"):
        TASK.score(["a"], [3])


def test_divergence_of_logits_is_kl_and_of_ids_edits() -> None:
    assert TASK.divergence(frames(1, 2), frames(1, 2)) == 0
    assert 0 < TASK.divergence(frames(1, 2), (frames(1, 2)[0] * 0.9,)) < TASK.divergence(frames(1, 2), frames(1, 3))
    assert IDS.divergence((np.array([[1, 2, 3, 4]]),), (np.array([[1, 2, 4]]),)) == 0.25


def test_hidden_states_are_refused() -> None:
    with pytest.raises(TaskError, match="CTC"):
        TASK.predict((np.zeros((1, 5)),), {})


def test_margin_is_that_of_the_least_sure_frame() -> None:
    sure, unsure = np.array([0.8, 0.1, 0.1]), np.array([0.5, 0.4, 0.1])
    assert TASK.margin((np.stack([sure, unsure])[None],)) == pytest.approx(0.1, abs=1e-4)
    assert TASK.margin((np.array([[1, 2]]),)) is None


@pytest.mark.parametrize(
    ("tokens", "width", "blank"),
    [(("<pad>", "a"), 2, 0), (("a", "b", "<blank>"), 3, 2), (("a", "b"), 3, 2), (("a", "b"), 2, 0)],
)
def test_the_blank_is_found(tokens: tuple[str, ...], width: int, blank: int) -> None:
    assert Vocabulary(tokens=tokens).blank(width) == blank


def test_pieces_are_joined_and_special_tokens_dropped() -> None:
    assert Vocabulary(tokens=("<s>", "▁he", "llo", "▁", "[UNK]", "w")).decode([0, 1, 2, 3, 5, 4, 99]) == "hello w"


def test_vocabularies_are_read(tmp_path: Path) -> None:
    listed, mapped = tmp_path / "tokens.txt", tmp_path / "vocab.json"
    listed.write_text("<pad>\n|\na\nb\nc")
    mapped.write_bytes(msgspec.json.encode({token: number for number, token in enumerate(LETTERS.tokens)}))
    assert read_vocabulary(listed) == read_vocabulary(mapped) == LETTERS


@pytest.mark.parametrize("content", [b"[1, 2]", b"{", b'{"a": -1}', b'{"a": "b"}', b'{"model": 1}', b"\xff", b"{}"])
def test_other_files_are_no_vocabulary(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"vocab\.json"):
        read_vocabulary(path)


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="No such file"):
        read_vocabulary(tmp_path / "gone.json")


def test_a_task_travels() -> None:
    assert pickle.loads(pickle.dumps(TASK)) == TASK  # noqa: S301 - written here


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_flips_are_symmetric_and_equal_outputs_do_not_diverge(one: list[int], two: list[int]) -> None:
    a, b = TASK.predict(frames(*one), {}), TASK.predict(frames(*two), {})
    assert TASK.flips([a], [b]).tolist() == TASK.flips([b], [a]).tolist()
    assert TASK.divergence(frames(*one), frames(*one)) == 0
    assert TASK.answer(a) == a
