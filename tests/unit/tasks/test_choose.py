from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.contracts.task import TaskConfig, TextOptions
from edgewise.errors import TaskError
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.choose import choose_task, class_count
from edgewise.forge.tasks.embedding import Embedding
from edgewise.forge.tasks.generic import Generic
from edgewise.forge.tasks.speech import Speech
from edgewise.runtimes.base import TensorSpec

IMAGE = TensorSpec("x", "float32", (None, 3, 64, 64))
SCORES = TensorSpec("scores", "float32", (None, 10))


def choose(
    kind: str | None,
    *outputs: TensorSpec,
    labels: bool = False,
    integers: bool = True,
    folder: Path = Path(),
    config: TaskConfig | None = None,
) -> Task:
    return choose_task(
        kind,
        config=config or TaskConfig(calibrate="c.npz"),
        outputs=outputs,
        inputs=(IMAGE,),
        has_labels=labels,
        folder=folder,
        integer_labels=integers,
    )


def test_one_row_of_scores_is_a_classifier() -> None:
    assert choose(None, SCORES).kind == "classification"
    assert choose(None, SCORES, labels=True).kind == "classification"
    assert choose(None, SCORES, labels=False, integers=False).kind == "classification"


@pytest.mark.parametrize(
    "outputs",
    [
        (SCORES, SCORES),
        (TensorSpec("s", "float32", (None, 1)),),
        (TensorSpec("s", "int64", (None, 10)),),
        (TensorSpec("s", "float32", (None, None)),),
        (TensorSpec("s", "float32", (8, 10)),),
        (TensorSpec("s", "float32", (None, 10, 4)),),
        (),
    ],
)
def test_other_outputs_are_generic_with_a_note(outputs: tuple[TensorSpec, ...]) -> None:
    task = choose(None, *outputs)
    assert isinstance(task, Generic)
    assert "--task" in task.note


def test_scores_with_labels_that_are_not_classes_are_generic() -> None:
    task = choose(None, SCORES, labels=True, integers=False)
    assert isinstance(task, Generic)
    assert "not integers" in task.note


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("classification", (None, 10)),
        ("classification", (1, 10, 1, 1)),
        ("detection", (1, 84, 85)),
        ("detection", (1, None, 6)),
        ("embedding", (None, 384)),
        ("embedding", (None, None, 384)),
        ("speech", (None, None, 32)),
        ("anomaly", (None, 1)),
        ("anomaly", (None, 3, 64, 64)),
        ("language", (1, None, 512)),
        ("generic", (5,)),
    ],
)
def test_a_kind_is_taken_where_the_outputs_fit(kind: str, shape: tuple[int | None, ...]) -> None:
    assert choose(kind, TensorSpec("o", "float32", shape)).kind == kind


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("classification", (None, 1)),
        ("classification", (None, 10, 7, 7)),
        ("detection", (None, 10)),
        ("embedding", (None,)),
        ("anomaly", (None, 2)),
        ("language", (None, 512)),
    ],
)
def test_a_kind_is_refused_where_they_do_not(kind: str, shape: tuple[int | None, ...]) -> None:
    with pytest.raises(TaskError, match="required"):
        choose(kind, TensorSpec("o", "float32", shape))


def test_a_typo_is_named_with_the_nearest_kind() -> None:
    with pytest.raises(TaskError, match="did you mean 'classification'"):
        choose("clasification", SCORES)
    with pytest.raises(TaskError, match="one of classification, detection"):
        choose("zzz", SCORES)


def test_sentence_transformers_name_their_embedding() -> None:
    tokens, sentence = TensorSpec("token_embeddings", "float32", (None, None, 8)), (None, 8)
    task = choose("embedding", tokens, TensorSpec("sentence_embedding", "float32", sentence))
    assert isinstance(task, Embedding)
    assert task.output == 1


def test_speech_takes_its_vocabulary_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<pad>\na")
    config = TaskConfig(calibrate="c", text=TextOptions(tokenizer="tokens.txt"))
    task = choose("speech", TensorSpec("o", "float32", (1, None, 2)), folder=tmp_path, config=config)
    assert isinstance(task, Speech)
    assert task.metric == "wer"


def test_a_class_in_a_file_is_loaded_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n def samples(self, s): ...\n def score(self, o, t): ...")
    assert choose("mine.py:Mine", SCORES, folder=tmp_path).kind == "mine.py:Mine"


def test_classes_are_counted() -> None:
    assert class_count((SCORES,)) == 10
    assert class_count((TensorSpec("s", "float32", (1, 7, 1, 1)),)) == 7
    assert class_count(()) is None
