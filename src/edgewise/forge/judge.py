"""Judge variants against fp32: the task's score, flips, divergence and output SQNR.

On the select split fp32's outputs are computed once and kept, because hundreds of variants are
compared with them. The test split is streamed: both models run side by side, sample by sample, and
only what the score needs is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np

from edgewise.errors import DataError
from edgewise.forge.data.kept import KeptFeeds
from edgewise.forge.tasks.base import Array, Dataset, Feeds, Outputs, Task
from edgewise.numerics.distance import SqnrAccumulator, cosine
from edgewise.runtimes.base import Session

# Of the select split so much is held: the first inputs, and all outputs, for which it is cut short.
HELD_INPUTS = 32 * 1024 * 1024
_HELD_OUTPUTS = 256 * 1024 * 1024
# Stands for the distance of an output that is not finite: such a variant must never look close.
_INFINITELY_FAR = 1e9

Report = Callable[[int], None]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A variant on some samples. `divergence` is the task's own mean distance to fp32."""

    samples: int
    divergence: float
    sqnr_db: float | None
    """None where the outputs are equal."""
    cosine: float | None
    """Mean cosine of the first output to fp32's, where it is a vector."""
    score: float | None
    metrics: dict[str, float]
    flip_rate: float | None
    flipped: tuple[int, ...]
    """Positions of the samples whose top answer differs, where a sample has one answer."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """fp32 on the select split."""

    feeds: Sequence[Feeds]
    outputs: tuple[Outputs, ...]
    predictions: tuple[Any, ...]
    targets: tuple[Any, ...]
    score: float | None
    metrics: dict[str, float]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A variant beside fp32 on one split, with the predictions of both."""

    reference: Judgement
    variant: Judgement
    reference_predictions: tuple[Any, ...]
    variant_predictions: tuple[Any, ...]
    margins: tuple[float | None, ...]
    """How sure fp32 was, sample by sample."""
    targets: tuple[Any, ...]


def refer(
    task: Task,
    session: Session,
    dataset: Dataset,
    *,
    held_inputs: int = HELD_INPUTS,
    report: Report = lambda _: None,
) -> Reference:
    """Run fp32 over a split and keep what it says. Ends early where that would not fit in memory.

    `held_inputs` bounds the bytes of inputs that are held; the others are read again each time.
    """
    feeds = KeptFeeds(dataset, bytes_held=held_inputs)
    outputs: list[Outputs] = []
    predictions, targets, held = [], [], 0
    for index in range(len(dataset)):
        sample = dataset[index]
        result = session.run(sample.feeds)
        held += sum(each.nbytes for each in result)
        if held > _HELD_OUTPUTS and outputs:
            break
        feeds.append(sample.feeds)
        outputs.append(result)
        predictions.append(task.predict(result, sample.feeds))
        targets.append(sample.target)
        report(index + 1)
    if not outputs:
        raise DataError(
            f"{dataset.name}: no samples", required="at least one sample", next_step="check the data folder"
        )
    score = task.score(predictions, targets)
    return Reference(
        feeds=feeds,
        outputs=tuple(outputs),
        predictions=tuple(predictions),
        targets=tuple(targets),
        score=score.value if score else None,
        metrics=score.metrics if score else {},
    )


def judge(task: Task, session: Session, reference: Reference, *, positions: Sequence[int] | None = None) -> Judgement:
    """Compare a variant with the reference, on all its samples or on those at `positions`."""
    tally = _Tally(task)
    for position in range(len(reference.feeds)) if positions is None else positions:
        feeds = reference.feeds[position]
        tally.add(reference.outputs[position], session.run(feeds), feeds, reference.targets[position])
    return tally.judgement([reference.predictions[position] for position in tally.range(positions)])


def compare(
    task: Task, fp32: Session, variant: Session, dataset: Dataset, *, report: Report = lambda _: None
) -> Comparison:
    """Run both over a whole split, a sample at a time, each on a thread of its own."""
    before, after, margins = _Tally(task), _Tally(task), []
    with ThreadPoolExecutor(1) as beside:
        for index in range(len(dataset)):
            sample = dataset[index]
            running = beside.submit(fp32.run, sample.feeds)
            got = variant.run(sample.feeds)
            expected = running.result()
            before.keep(expected, sample.feeds, sample.target)
            after.add(expected, got, sample.feeds, sample.target)
            margins.append(task.margin(expected))
            report(index + 1)
    if not margins:
        raise DataError(
            f"{dataset.name}: no samples", required="at least one sample", next_step="check the data folder"
        )
    predictions = before.predictions
    variant_judgement = after.judgement(predictions)
    itself = 1.0 if variant_judgement.cosine is not None else None
    return Comparison(
        reference=msgspec.structs.replace(before.judgement(predictions), cosine=itself),
        variant=variant_judgement,
        reference_predictions=tuple(predictions),
        variant_predictions=tuple(after.predictions),
        margins=tuple(margins),
        targets=tuple(after.targets),
    )


class _Tally:
    """Accumulates one variant's samples; outputs are dropped, predictions kept."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._sqnr = SqnrAccumulator()
        self._divergences: list[float] = []
        self._cosines: list[float] = []
        self.predictions: list[Any] = []
        self.targets: list[Any] = []

    def range(self, positions: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.predictions)) if positions is None else positions

    def add(self, expected: Outputs, got: Outputs, feeds: Feeds, target: Any) -> None:
        far = self._task.divergence(expected, got)
        self._divergences.append(far if np.isfinite(far) else _INFINITELY_FAR)
        for want, have in zip(expected, got, strict=True):
            if np.issubdtype(want.dtype, np.floating):
                self._sqnr.update(want, have)
        if _is_vector(expected[0]):
            self._cosines.append(float(cosine(expected[0].reshape(-1), got[0].reshape(-1))))
        self.keep(got, feeds, target)

    def keep(self, got: Outputs, feeds: Feeds, target: Any) -> None:
        """Keep the prediction only: all there is to say of fp32 beside itself."""
        self.predictions.append(self._task.predict(got, feeds))
        self.targets.append(target)

    def judgement(self, reference: Sequence[Any]) -> Judgement:
        score = self._task.score(self.predictions, self.targets)
        flips = self._task.flips(reference, self.predictions)
        one_each = flips is not None and len(flips) == len(self.predictions)
        sqnr = self._sqnr.db
        return Judgement(
            samples=len(self.predictions),
            divergence=float(np.mean(self._divergences)) if self._divergences else 0.0,
            sqnr_db=float(sqnr) if np.isfinite(sqnr) else None,
            cosine=float(np.mean(self._cosines)) if self._cosines else None,
            score=score.value if score else None,
            metrics=score.metrics if score else {},
            flip_rate=float(np.mean(flips)) if flips is not None else None,
            flipped=tuple(int(at) for at in np.flatnonzero(flips)) if one_each and flips is not None else (),
        )


def _is_vector(first: Array) -> bool:
    return bool(np.issubdtype(first.dtype, np.floating) and first.size > 1)
