"""Run fp32 and the variant side by side over the test split, once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edgewise.errors import DataError, ModelError
from edgewise.forge.tasks.base import Dataset, Outputs, Task
from edgewise.forge.verify.beside import Beside
from edgewise.forge.verify.subject import Pairs
from edgewise.runtimes.base import Session

# Outputs of both models that are held in memory; predictions and distances are of all samples.
HELD_BYTES = 96 * 1024 * 1024

Report = Callable[[int], None]


def pair(
    task: Task, reference: Session, variant: Session, test: Dataset, *, held_bytes: int = HELD_BYTES, report: Report
) -> Pairs:
    """Return what both models say of every sample, and the outputs of as many as fit into `held_bytes`.

    Raises DataError for an empty split, ModelError where the outputs cannot be compared or fp32's are not numbers.
    """
    if not len(test):
        raise DataError(
            f"{test.name}: no samples", required="at least one test sample", next_step="check the data folder"
        )
    before: list[Any] = []
    after: list[Any] = []
    targets: list[Any] = []
    margins: list[float | None] = []
    divergences: list[float] = []
    outputs: tuple[list[Outputs], list[Outputs]] = ([], [])
    room, beside = held_bytes, Beside()
    for index in range(len(test)):
        sample = test[index]
        expected, found = beside.both(partial(reference.run, sample.feeds), partial(variant.run, sample.feeds))
        _check(expected, found, index)
        before.append(task.predict(expected, sample.feeds))
        after.append(task.predict(found, sample.feeds))
        targets.append(sample.target)
        margins.append(task.margin(expected))
        divergences.append(float(task.divergence(expected, found)))
        room -= sum(each.nbytes for each in (*expected, *found))
        if room >= 0:
            outputs[0].append(expected)
            outputs[1].append(found)
        report(index + 1)
    return Pairs(
        reference_predictions=tuple(before),
        variant_predictions=tuple(after),
        targets=tuple(targets),
        reference_outputs=tuple(outputs[0]),
        variant_outputs=tuple(outputs[1]),
        reference_margins=tuple(margins),
        divergences=tuple(divergences),
    )


def are_numbers(outputs: Outputs) -> bool:
    """Return whether no output holds NaN; infinities can be meant (masked logits)."""
    return not any(bool(np.isnan(each).any()) for each in outputs if each.dtype.kind == "f")


def _check(expected: Outputs, found: Outputs, index: int) -> None:
    shapes = [[list(each.shape) for each in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1] and not _may_differ(expected, found):
        raise ModelError(
            f"test sample {index}: the variant's outputs have the shapes {shapes[1]}",
            required=f"{shapes[0]}, those of the reference",
            next_step="check that the variant was made from this reference",
        )
    if not are_numbers(expected):
        raise ModelError(
            f"test sample {index}: the reference model gives NaN",
            required="a reference whose outputs are numbers",
            next_step="check the model with this sample, and how the data is prepared",
        )


def _may_differ(expected: Outputs, found: Outputs) -> bool:
    """Return whether only the number of rows differs, as with boxes that were suppressed in the graph."""
    return len(expected) == len(found) and all(
        mine.ndim == its.ndim and mine.ndim >= 2 and mine.shape[-1] == its.shape[-1]
        for mine, its in zip(expected, found, strict=True)
    )
