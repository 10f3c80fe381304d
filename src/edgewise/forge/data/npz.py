"""A split in an npz: `x` or one array per model input, and optionally `y` or `boxes`.

Only labels are held in memory; samples are read from the file one by one.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise.errors import DataError
from edgewise.forge.data.digest import digest_files
from edgewise.forge.data.fit import can_fail, cast, check_dtype, check_shape, model_dtype, takes_rows
from edgewise.forge.data.labels import box_labels, pair_labels, row_labels
from edgewise.forge.data.padding import trim_padding, trimmed_inputs
from edgewise.forge.data.rows import Rows, open_npz
from edgewise.forge.data.scratch import Scratch
from edgewise.forge.tasks.base import Array, Sample
from edgewise.runtimes.base import TensorSpec

SINGLE = "x"
LABELS = "y"
BOXES = "boxes"


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    """One model input and where its samples lie."""

    spec: TensorSpec
    rows: Rows
    where: str

    @property
    def shared(self) -> bool:
        """Whether one scalar serves all samples."""
        return not self.rows.shape

    def read(self, index: int) -> Array:
        """Return the input of one sample as the model takes it."""
        values = self.rows.read(0 if self.shared else index)
        if not self.shared and not takes_rows(self.rows.shape, self.spec):
            values = values.reshape(values.shape[1:])  # the array holds whole inputs, which have no batch axis
        return cast(values, self.spec, where=f"{self.where}, sample {index}")

    def scan(self) -> None:
        """Read all samples once in chunks and refuse values that do not fit; holds one chunk."""
        stored = np.dtype(self.rows.dtype)
        if not can_fail(stored, model_dtype(self.spec)):
            return
        step = self.rows.rows_per_chunk
        for start in range(0, len(self.rows), step):
            chunk = self.rows.read(start, min(step, len(self.rows) - start))
            try:
                cast(chunk, self.spec, where=self.where)
            except DataError:
                for index, row in enumerate(chunk if self.rows.shape else chunk[None], start):
                    cast(row, self.spec, where=f"{self.where}, sample {index}")
                raise


class NpzDataset:
    """The samples of one npz. Opened with `open_npz_dataset`, which checks all of it."""

    def __init__(
        self,
        *,
        path: Path,
        inputs: tuple[_Input, ...],
        targets: Sequence[Any] | None,
        warnings: tuple[str, ...],
        scratch: Scratch | None,
    ) -> None:
        """Keep what `open_npz_dataset` found."""
        self._path = path
        self._inputs = inputs
        self._targets = targets
        self._warnings = warnings
        self._scratch = scratch
        self._trimmed = trimmed_inputs(tuple(each.spec for each in inputs))

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def targets(self) -> Sequence[Any] | None:
        """One target per sample, or None where the file has none."""
        return self._targets

    @property
    def warnings(self) -> tuple[str, ...]:
        """Arrays of the file that nothing reads."""
        return self._warnings

    def __len__(self) -> int:
        """Return the number of samples."""
        return _length(self._inputs)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample; raises IndexError outside the split and DataError where the file changed."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        feeds = {each.spec.name: each.read(index) for each in self._inputs}
        if self._trimmed:
            feeds = trim_padding(feeds, self._trimmed, where=f"{self._path}, sample {index}")
        return Sample(feeds=feeds, target=None if self._targets is None else self._targets[index])

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the file's bytes."""
        return digest_files((self._path,))

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sample's stored bytes."""
        state = hashlib.blake2b(digest_size=16)
        for each in self._inputs:
            values = each.rows.read(0 if each.shared else index)
            state.update(f"{each.spec.name} {each.rows.dtype} {values.shape[1:]}".encode())
            state.update(values.tobytes())
        return state.digest()

    def close(self) -> None:
        """Delete the unpacked copy of a compressed file now; otherwise that happens at exit."""
        if self._scratch is not None:
            self._scratch.close()


def open_npz_dataset(path: Path, *, inputs: tuple[TensorSpec, ...], pairs: bool = False) -> NpzDataset:
    """Open a split and check every value of it against the model's inputs.

    `pairs` reads `y` as one score per two rows (sentence pairs). Raises DataError.
    """
    arrays, scratch = open_npz(path)
    found = tuple(_input_of(path, spec, arrays, alone=len(inputs) == 1) for spec in inputs)
    _check_lengths(path, found)
    for each in found:
        each.scan()
    used = {each.rows for each in found}
    others = {name: rows for name, rows in arrays.items() if rows not in used}
    samples = _length(found)
    warnings = tuple(
        f"{path}: nothing reads its array {name!r}{_did_you_mean(name)}"
        for name in others
        if name not in (LABELS, BOXES)
    )
    return NpzDataset(
        path=path,
        inputs=found,
        targets=_targets(path, others, samples, pairs=pairs),
        warnings=warnings,
        scratch=scratch,
    )


def _input_of(path: Path, spec: TensorSpec, arrays: Mapping[str, Rows], *, alone: bool) -> _Input:
    name = spec.name if spec.name in arrays or not alone else SINGLE
    if name not in arrays:
        raise DataError(
            f"{path} holds {', '.join(map(repr, arrays)) or 'no arrays'}",
            required=f"the array {spec.name!r}" + (f" (or {SINGLE!r})" if alone else ", one per model input"),
            next_step="write it with numpy.savez(file, " + (SINGLE if alone else spec.name) + "=...)",
        )
    rows, where = arrays[name], f"{path}: array {name!r}"
    check_dtype(rows.dtype, spec, where=where)
    if rows.shape or spec.shape:
        if rows.shape == (len(rows),) and not spec.shape:
            return _Input(spec=spec, rows=rows, where=where)
        check_shape(rows.shape, spec, where=where)
    return _Input(spec=spec, rows=rows, where=where)


def _check_lengths(path: Path, inputs: tuple[_Input, ...]) -> None:
    lengths = {each.where: len(each.rows) for each in inputs if not each.shared}
    if not lengths or min(lengths.values()) == 0:
        raise DataError(f"{path} holds no samples", required="at least one", next_step="write some")
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{path}: the arrays differ in length: " + ", ".join(f"{k.split()[-1]} {v}" for k, v in lengths.items()),
            required="one row per sample in each of them",
            next_step="write the arrays of the same samples together",
        )


def _targets(path: Path, others: Mapping[str, Rows], samples: int, *, pairs: bool) -> Sequence[Any] | None:
    if BOXES in others:
        rows = others[BOXES]
        return box_labels(rows.read(0, len(rows)), samples, where=f"{path}: array {BOXES!r}")
    if LABELS not in others:
        return None
    rows, where = others[LABELS], f"{path}: array {LABELS!r}"
    values = rows.read(0, len(rows))
    if pairs and len(rows) * 2 == samples:
        return pair_labels(values, samples, where=where)
    return row_labels(values, samples, where=where)


def _length(inputs: tuple[_Input, ...]) -> int:
    return next(len(each.rows) for each in inputs if not each.shared)


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), (SINGLE, LABELS, BOXES, "labels"), n=1)
    match near:
        case ["labels"]:
            return f": labels are named {LABELS!r}"
        case [other]:
            return f": did you mean {other!r}?"
        case _:
            return ""
