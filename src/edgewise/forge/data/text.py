"""Text in a table, as token ids: sentences, or pairs of sentences with a score (extra `text`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.contracts.task import TextOptions
from edgewise.errors import DataError
from edgewise.forge.data.digest import digest_files
from edgewise.forge.data.fit import model_dtype
from edgewise.forge.data.tables import integer, read_table
from edgewise.forge.tasks.base import Array, Feeds, Sample
from edgewise.forge.tasks.embedding import Pair
from edgewise.forge.tasks.vocabulary import load_tokenizer
from edgewise.runtimes.base import TensorSpec

SENTENCE, FIRST, SECOND, SCORE, LABEL = "sentence", "sentence1", "sentence2", "score", "label"


class TextDataset:
    """Sentences, encoded when they are read. Made by `open_text`."""

    def __init__(
        self,
        path: Path,
        *,
        tokenizer: Path,
        rows: Sequence[tuple[str, Any]],
        options: TextOptions,
        inputs: tuple[TensorSpec, ...],
    ) -> None:
        """Keep the rows (sentence, target) and load the tokenizer."""
        self._path = path
        self._tokenizer = tokenizer
        self._rows = tuple(rows)
        self._inputs = inputs
        fixed = [spec.shape[1] for spec in inputs if spec.shape[1] is not None]
        self._limit = min([options.max_tokens, *fixed])
        load_tokenizer(str(tokenizer))
        _ = self[0]  # so that inputs and tokenizer that do not fit are refused now

    @property
    def name(self) -> str:
        """The table's path."""
        return str(self._path)

    @property
    def targets(self) -> Sequence[Any] | None:
        """One target per sentence, or None where there are none."""
        found = tuple(target for _, target in self._rows)
        return None if all(target is None for target in found) else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def __len__(self) -> int:
        """Return the number of sentences: a pair is two."""
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Sample:
        """Encode one sentence; raises IndexError outside the split."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        sentence, target = self._rows[index]
        return Sample(feeds=self.encode(sentence, where=f"sentence {index}"), target=target)

    def sentence(self, index: int) -> str:
        """Return the text of one sample."""
        return self._rows[index][0]

    def encode(self, sentence: str, *, where: str) -> Feeds:
        """Return the model's inputs for a text; raises DataError where it has no tokens."""
        encoded = load_tokenizer(str(self._tokenizer)).encode(sentence)
        ids, types = encoded.ids, encoded.type_ids
        if len(ids) > self._limit:
            # Cut by hand, closing token kept: the tokenizer is shared, and truncation would be set on it.
            ids, types = [*ids[: self._limit - 1], ids[-1]], [*types[: self._limit - 1], types[-1]]
        if not ids:
            raise DataError(f"{self._path}: {where} has no tokens", next_step="remove it")
        columns = {"ids": ids, "mask": [1] * len(ids), "types": types}
        return {spec.name: _row(columns[_role(spec, self._inputs)], spec) for spec in self._inputs}

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the table, the tokenizer and the length that is cut at."""
        extra = str(self._limit).encode()
        return digest_files((self._path, self._tokenizer), extra=extra)

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sentence."""
        return hashlib.blake2b(self._rows[index][0].encode(), digest_size=16).digest()


def open_text(path: Path, *, options: TextOptions, inputs: tuple[TensorSpec, ...], folder: Path) -> TextDataset:
    """Open a table with the columns `sentence` (and `label`), or `sentence1,sentence2` (and `score`).

    Pairs become two samples one after the other. The tokenizer is the one of the options, relative to `folder`, or
    a tokenizer.json beside the table. Raises DataError.
    """
    for spec in inputs:
        _role(spec, inputs)  # refuses inputs that text cannot fill
    if options.max_tokens < 2:
        raise DataError(
            f"[task.text] max_tokens is {options.max_tokens}", required="at least 2", next_step="correct it"
        )
    table = read_table(path)
    if SENTENCE in table[0]:
        rows = [(row[SENTENCE], _label(path, index, row)) for index, row in enumerate(table)]
    elif FIRST in table[0] and SECOND in table[0]:
        rows = [each for index, row in enumerate(table) for each in _halves(path, index, row)]
    else:
        raise DataError(
            f"{path} has the columns {', '.join(table[0])}",
            required="sentence; or sentence1, sentence2 and score; or file and label or text",
            next_step="name the columns in the first line",
        )
    tokenizer = folder / options.tokenizer if options.tokenizer is not None else path.parent / "tokenizer.json"
    if not tokenizer.is_file():
        raise DataError(
            f"{tokenizer} does not exist",
            required="the tokenizer.json that came with the model",
            next_step="set [task.text] tokenizer, or put it beside the table",
        )
    return TextDataset(path, tokenizer=tokenizer.resolve(), rows=rows, options=options, inputs=inputs)


def _halves(path: Path, index: int, row: dict[str, str]) -> list[tuple[str, Any]]:
    target = None
    if SCORE in row:
        try:
            target = Pair(index=index, score=float(row[SCORE]))
        except ValueError:
            target = None
        if target is None or not np.isfinite(target.score):
            raise DataError(
                f"{path}: the score of pair {index} is {row[SCORE]!r}", required="a number", next_step="correct it"
            )
    return [(row[FIRST], target), (row[SECOND], target)]


def _label(path: Path, index: int, row: dict[str, str]) -> int | None:
    return integer(path, index, LABEL, row[LABEL]) if LABEL in row else None


def _role(spec: TensorSpec, inputs: tuple[TensorSpec, ...]) -> str:
    """Return what an input takes: token ids, the mask, or segment types; by name, as transformers exports it."""
    if model_dtype(spec).kind in "iu" and len(spec.shape) == 2:
        name = spec.name.lower()
        if "mask" in name:
            return "mask"
        if "type" in name or "segment" in name:
            return "types"
        if "ids" in name or "tokens" in name or len(inputs) == 1:
            return "ids"
    raise DataError(
        f"the model's input {spec.name!r} {spec.dtype} {list(spec.shape)} is none that text fills",
        required="integer inputs [1, tokens] like input_ids, attention_mask, token_type_ids",
        next_step="store prepared samples in an npz, one array per input",
    )


def _row(values: list[int], spec: TensorSpec) -> Array:
    """Return `[1, tokens]`, padded with zeros where the model's length is fixed."""
    length = spec.shape[1]
    row = np.zeros((1, len(values) if length is None else length), model_dtype(spec))
    row[0, : len(values)] = values
    return row
