"""Labels: what stands next to the samples, and whether a task can use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError
from edgewise.forge.tasks.base import Array, Dataset
from edgewise.forge.tasks.embedding import Pair

BOX_COLUMNS = 6


class Labelled(Dataset, Protocol):
    """A dataset of this package: its labels can be read without decoding the samples."""

    @property
    def targets(self) -> Sequence[Any] | None:
        """One target per sample, or None where there are no labels."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the files, though they can be used."""
        ...

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sample's inputs; equal inputs of the same kind of file have equal ones."""
        ...


def has_integer_labels(dataset: Labelled) -> bool:
    """Return whether there are labels and all are whole numbers, as classes are."""
    targets = dataset.targets
    return targets is not None and len(targets) > 0 and all(_is_integer(each) for each in targets)


def check_labels(dataset: Labelled, *, classes: int) -> None:
    """Refuse labels that are not the number of one of `classes` classes; raises DataError."""
    for index, target in enumerate(dataset.targets or ()):
        if target is None:
            continue
        if not _is_integer(target):
            raise DataError(
                f"{dataset.name}: the label of sample {index} is {target!r}",
                required=f"an integer from 0 to {classes - 1}",
                next_step="store class numbers, or choose the task that these labels belong to with --task",
            )
        if not 0 <= target < classes:
            raise DataError(
                f"{dataset.name}: the label of sample {index} is {target}",
                required=f"0 to {classes - 1}: the model has {classes} classes",
                next_step="check that labels start at 0 and belong to this model",
            )


def row_labels(values: Array, samples: int, *, where: str) -> tuple[Any, ...]:
    """Return the labels of an array `[samples]`, `[samples, 1]` or `[samples, ...]` as Python values or rows.

    Raises DataError for a wrong length and for floats that are not finite.
    """
    if values.ndim == 0 or len(values) != samples:
        raise DataError(
            f"{where} has {len(values) if values.ndim else 'no'} rows",
            required=f"{samples}, one label per sample",
            next_step="write samples and labels together",
        )
    if values.dtype.kind not in "iubfU":
        raise DataError(
            f"{where} is of type {values.dtype.name}",
            required="integers (classes), floats (scores) or strings (texts)",
            next_step="cast it before numpy.savez",
        )
    _refuse_not_finite(values, where=where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        return tuple((values.astype(np.int64) if values.dtype.kind == "b" else values).tolist())
    return tuple(values)


def pair_labels(values: Array, samples: int, *, where: str) -> tuple[Pair, ...]:
    """Return the targets of sentence pairs: score `i` belongs to the rows 2i and 2i + 1."""
    _refuse_not_finite(values, where=where)
    scores = row_labels(values, samples // 2, where=where)
    return tuple(Pair(index=i // 2, score=float(scores[i // 2])) for i in range(2 * len(scores)))


def box_labels(values: Array, samples: int, *, where: str) -> tuple[NDArray[np.float32], ...]:
    """Return per image the boxes `[n, 5]` (class, x1, y1, x2, y2) of rows with the image's number in front.

    Corners are in pixels of the model's input. Raises DataError for anything that is not such a box.
    """
    if values.ndim != 2 or values.shape[1] != BOX_COLUMNS or values.dtype.kind not in "iuf":
        raise DataError(
            f"{where} is {values.dtype.name} of shape {list(values.shape)}",
            required=f"numbers [boxes, {BOX_COLUMNS}]: image, class, x1, y1, x2, y2",
            next_step="one row per box, corners in pixels of the model's input",
        )
    _refuse_not_finite(values, where=where)
    table = values.astype(np.float64)
    image, label = table[:, 0], table[:, 1]
    wrong = (image != np.floor(image)) | (image < 0) | (image >= samples) | (label != np.floor(label)) | (label < 0)
    wrong |= (table[:, 4] < table[:, 2]) | (table[:, 5] < table[:, 3])
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}: row {row} is {table[row].tolist()}",
            required=f"image 0 to {samples - 1}, a class from 0, x1 <= x2 and y1 <= y2",
            next_step="check that the boxes belong to these images",
        )
    return tuple(table[image == i, 1:].astype(np.float32) for i in range(samples))


def _refuse_not_finite(values: Array, *, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{where} holds NaN or infinity", required="finite labels", next_step="repair the labels")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
