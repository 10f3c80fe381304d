from __future__ import annotations

import pickle  # noqa: TID251 - datasets travel to worker processes
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from edgewise.contracts.task import TaskConfig, TextOptions
from edgewise.errors import DataError, TaskError
from edgewise.forge.data.labels import Labelled
from edgewise.forge.data.open import open_dataset
from edgewise.forge.tasks.base import iterate
from edgewise.forge.tasks.embedding import Pair
from edgewise.runtimes.base import TensorSpec

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", '"quoted')
IDS = TensorSpec("input_ids", "int64", (None, None))
MASK = TensorSpec("attention_mask", "int64", (None, None))
TYPES = TensorSpec("token_type_ids", "int32", (None, None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def opened(folder: Path, table: str, *specs: TensorSpec, text: TextOptions | None = None) -> Labelled:
    path = folder / "data.tsv"
    path.write_text(table.replace(",", "\t"))
    config = TaskConfig(calibrate="c", text=text or TextOptions())
    return open_dataset(path, config=config, inputs=specs or (IDS, MASK))


def test_sentences_are_encoded_at_their_own_length(folder: Path) -> None:
    dataset = opened(folder, "sentence,label\na b,1\nc,0\n", IDS, MASK, TYPES)
    assert dataset.targets == (1, 0)
    feeds = dataset[0].feeds
    assert feeds["input_ids"].tolist() == [[1, 4, 5, 2]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0]]
    assert feeds["token_type_ids"].dtype == "int32"
    assert dataset[1].feeds["input_ids"].shape == (1, 3)
    assert opened(folder, "sentence\na b\n").targets is None


def test_pairs_become_two_samples_with_one_target(folder: Path) -> None:
    dataset = opened(folder, "score,sentence1,sentence2,genre\n4.5,a,b,x\n1,c c,a,x\n")
    assert [each.target for each in iterate(dataset)] == [
        Pair(index=0, score=4.5),
        Pair(index=0, score=4.5),
        Pair(index=1, score=1),
        Pair(index=1, score=1),
    ]
    assert dataset[2].feeds["input_ids"].tolist() == [[1, 6, 6, 2]]
    assert opened(folder, "sentence1,sentence2\na,b\n").targets is None


def test_quotation_marks_in_a_tsv_are_text(folder: Path) -> None:
    assert len(opened(folder, 'sentence\n"a b\nc"\n')) == 2


def test_long_texts_are_cut_and_keep_the_closing_token(folder: Path) -> None:
    dataset = opened(folder, "sentence\na b c a b c\n", text=TextOptions(max_tokens=4))
    assert dataset[0].feeds["input_ids"].tolist() == [[1, 4, 5, 2]]


def test_padding_and_cutting_that_the_tokenizer_asks_for_are_left_out(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert opened(folder, "sentence\na b\n")[0].feeds["input_ids"].tolist() == [[1, 4, 5, 2]]


def test_fixed_lengths_are_padded_and_cut(folder: Path) -> None:
    fixed = (TensorSpec("ids", "int64", (1, 5)), TensorSpec("mask", "int64", (1, 5)))
    dataset = opened(folder, "sentence\na\na b c a b c\n", *fixed)
    assert dataset[0].feeds["ids"].tolist() == [[1, 4, 2, 0, 0]]
    assert dataset[0].feeds["mask"].tolist() == [[1, 1, 1, 0, 0]]
    assert dataset[1].feeds["ids"].tolist() == [[1, 4, 5, 6, 2]]


def test_a_single_input_takes_the_ids_whatever_its_name(folder: Path) -> None:
    assert opened(folder, "sentence\na\n", TensorSpec("x", "int64", (1, None)))[0].feeds["x"].tolist() == [[1, 4, 2]]


def test_digest_follows_table_tokenizer_and_length(folder: Path) -> None:
    dataset = opened(folder, "sentence\na\nb\na\n")
    assert dataset.fingerprint(0) == dataset.fingerprint(2) != dataset.fingerprint(1)
    assert pickle.loads(pickle.dumps(dataset))[1].feeds["input_ids"].tolist() == [[1, 5, 2]]  # noqa: S301 - written here
    before = dataset.digest()
    assert opened(folder, "sentence\na\nb\na\n", text=TextOptions(max_tokens=4)).digest() != before
    assert opened(folder, "sentence\na\nb\nb\n").digest() != before


def test_the_tokenizer_of_the_config_is_relative_to_the_given_folder(folder: Path) -> None:
    nested = folder / "data"
    nested.mkdir()
    (nested / "t.tsv").write_text("sentence\na\n")
    config = TaskConfig(calibrate="c", text=TextOptions(tokenizer="tokenizer.json"))
    assert len(open_dataset(nested / "t.tsv", config=config, inputs=(IDS,), folder=folder)) == 1
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        open_dataset(nested / "t.tsv", config=config, inputs=(IDS,))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("words\na\n", "columns words"),
        ("sentence1\na\n", "sentence1, sentence2"),
        ("sentence,label\na,good\n", "label of sample 0 is 'good'"),
        ("sentence1,sentence2,score\na,b,high\n", "score of pair 0 is 'high'"),
        ("sentence1,sentence2,score\na,b,nan\n", "score of pair 0 is 'nan'"),
        ("sentence\n", "no samples"),
    ],
)
def test_tables_that_are_wrong(folder: Path, table: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        opened(folder, table)


def test_what_text_cannot_feed(folder: Path) -> None:
    for spec in (TensorSpec("input_ids", "float32", (1, None)), TensorSpec("x", "int64", (1, None))):
        with pytest.raises(DataError, match="none that text fills"):
            opened(folder, "sentence\na\n", spec, MASK)
    with pytest.raises(DataError, match="max_tokens is 1"):
        opened(folder, "sentence\na\n", text=TextOptions(max_tokens=1))


def test_a_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(TaskError, match=r"not a tokenizer\.json"):
        opened(folder, "sentence\nb\n")
