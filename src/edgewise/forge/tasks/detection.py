"""Object detection: mAP50-95 and mAP50 over boxes after non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.task import DetectionOptions
from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.average_precision import mean_average_precision
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Score
from edgewise.forge.tasks.boxes import (
    COLUMNS,
    candidates,
    cross_iou,
    paired_iou,
    relative_corners,
    suppress,
    yolox_cells,
    yolox_grid,
    yolox_scores,
)
from edgewise.forge.tasks.divergence import comparable
from edgewise.runtimes.base import TensorSpec

YOLOX = "yolox"
BOXES = "boxes"
_YOLOX_COLUMNS = 6
"""Centre, size, objectness and at least one class."""
_SAME_BOX = 0.5
_STILL_THERE = 0.5


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """Boxes per image. A prediction is float32 `[n, 6]`: x1, y1, x2, y2, score, class, in input pixels."""

    kind: ClassVar[str] = "detection"
    metric: ClassVar[str] = "map50_95"
    higher_is_better: ClassVar[bool] = True

    layout: str
    """`yolox` or `boxes`."""
    options: DetectionOptions = DetectionOptions()

    def predict(self, outputs: Outputs, feeds: Feeds) -> NDArray[np.float32]:
        """Return the boxes that survive suppression. Rows that are not finite are no boxes."""
        with np.errstate(over="ignore", invalid="ignore"):
            table = self._table(outputs, feeds)
        return suppress(table, overlap=self.options.overlap)

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return mAP50-95 and mAP50 over the images that have labels; None where no label box exists."""
        labelled = [(p, t) for p, t in zip(predictions, targets, strict=True) if t is not None]
        for _, target in labelled:
            _check_target(target)
        mean = mean_average_precision([p for p, _ in labelled], [t for _, t in labelled])
        if mean is None:
            return None
        return Score(value=float(mean.mean()), metrics={"map50_95": float(mean.mean()), "map50": float(mean[0])})

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_]:
        """Return per image whether the best box of either model is missing in the other's.

        It is there if a box of its class overlaps it by at least half with at least half its score. A
        best box that would be below the threshold at half its score is no decision.
        """
        sides = zip(reference, candidate, strict=True)
        return np.array([self._lost(a, b) or self._lost(b, a) for a, b in sides], np.bool_)

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the mean over cells or boxes of the change of score plus (1 - IoU) times the score.

        Each is weighted by how far the better of both scores is above the threshold: what neither
        model would report does not count.
        """
        left, right = reference[0], candidate[0]
        if self.layout == BOXES:
            return _box_divergence(left.reshape(-1, COLUMNS), right.reshape(-1, COLUMNS), self.options.threshold)
        if not comparable(left, right):
            return float("inf")
        return _cell_divergence(left[0], right[0], self.options.threshold)

    def answer(self, prediction: Any) -> str:
        """Return the best box as `class score at x1,y1,x2,y2`."""
        if not len(prediction):
            return "nothing"
        x1, y1, x2, y2, score, label = prediction[prediction[:, 4].argmax()]
        return f"{label:.0f} ({score:.2f}) at {x1:.0f},{y1:.0f},{x2:.0f},{y2:.0f}"

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: an image has many answers."""
        return None

    def _table(self, outputs: Outputs, feeds: Feeds) -> Array:
        if self.layout == BOXES:
            rows = outputs[0].reshape(-1, COLUMNS).astype(np.float64)
            return rows[np.isfinite(rows).all(1) & (rows[:, 4] > self.options.threshold)]
        raw = outputs[0][0]
        cells, strides = yolox_grid(*_image_side(feeds), self.options.strides)
        if len(cells) != len(raw):
            raise TaskError(
                f"the model's output has {len(raw)} rows",
                required=f"{len(cells)} for an input of this size and strides {list(self.options.strides)}",
                next_step="set [task.detection] strides, or layout",
            )
        corners = (relative_corners(raw) + np.tile(cells, 2)) * strides
        return candidates(corners, yolox_scores(raw), threshold=self.options.threshold)

    def _lost(self, mine: Array, other: Array) -> bool:
        """Return whether the best of my boxes is not among the other's."""
        if not len(mine):
            return False
        best = mine[mine[:, 4].argmax()]
        if best[4] * _STILL_THERE < self.options.threshold:
            return False
        alike = other[(other[:, 5] == best[5]) & (other[:, 4] >= best[4] * _STILL_THERE)]
        return not (paired_iou(best[:4], alike[:, :4]) >= _SAME_BOX).any()


def detection_layout(
    options: DetectionOptions, *, outputs: tuple[TensorSpec, ...], inputs: tuple[TensorSpec, ...]
) -> str:
    """Return the layout of the first output, as configured or recognised; raises TaskError where none fits."""
    shape = outputs[0].shape if outputs else ()
    columns = shape[-1] if shape else None
    rows = shape[1] if len(shape) == 3 else None
    cells = {yolox_cells(*side, options.strides) for side in _sides(inputs)}
    match options.layout:
        case "auto" if len(shape) == 3 and columns is not None and columns >= _YOLOX_COLUMNS and rows in cells:
            return YOLOX
        case "auto" if columns == COLUMNS:
            return BOXES
        case "auto" if len(shape) == 3 and columns is not None and columns > COLUMNS and (rows is None or not cells):
            return YOLOX
        case "yolox" if len(shape) == 3 and columns is not None and columns >= _YOLOX_COLUMNS:
            return YOLOX
        case "boxes" if columns == COLUMNS:
            return BOXES
    raise TaskError(
        f"the model's first output is {list(shape)}, with [task.detection] layout = {options.layout!r}",
        required="yolox: [1, cells of the strides, 5 + classes]; or boxes: [1, n, 6] of x1 y1 x2 y2 score class",
        next_step="set [task.detection] layout and strides, or write a task of your own (`file.py:Class`)",
    )


def _cell_divergence(left: Array, right: Array, threshold: float) -> float:
    """Return the divergence of two YOLOX outputs `[cells, 5 + classes]`, cell by cell."""
    before, after = yolox_scores(left), yolox_scores(right)
    better = np.maximum(before.max(1), after.max(1))
    weight = np.maximum(better - threshold, 0)
    live = np.flatnonzero(weight)
    if not live.size:
        return 0.0
    weight, better = weight[live], better[live]
    change = np.abs(before[live] - after[live]).max(1)
    apart = 1 - paired_iou(relative_corners(left[live]), relative_corners(right[live]))
    equal = (left[live, :4] == right[live, :4]).all(1)  # a box of no area has no overlap even with itself
    return float((weight * (change + better * np.where(equal, 0, apart))).sum() / weight.sum())


def _box_divergence(left: Array, right: Array, threshold: float) -> float:
    """Return the divergence of two tables `[n, 6]`, of which rows may be missing or moved: mean of both directions."""
    if not np.isfinite(right).all():
        return float("inf")
    tables = [each[each[:, 4] > threshold].astype(np.float64) for each in (left, right)]
    if np.array_equal(tables[0], tables[1]):
        return 0.0
    return (_one_way(tables[0], tables[1], threshold) + _one_way(tables[1], tables[0], threshold)) / 2


def _one_way(mine: Array, other: Array, threshold: float) -> float:
    """Return the weighted cost of finding each of my boxes among the other's of its class."""
    if not len(mine):
        return 0.0
    score, weight = mine[:, 4], mine[:, 4] - threshold
    if not len(other):
        return float((weight * 2 * score).sum() / weight.sum())
    overlap = np.where(mine[:, 5:6] == other[None, :, 5], cross_iou(mine, other), 0.0)
    cost = np.abs(score[:, None] - other[None, :, 4]) + score[:, None] * (1 - overlap)
    cost = np.where(overlap > 0, cost, 2 * score[:, None])  # no match: its score and its box are lost
    return float((weight * cost.min(1)).sum() / weight.sum())


def _sides(inputs: tuple[TensorSpec, ...]) -> list[tuple[int, int]]:
    """Return the possible (height, width) of the image input, where its shape is static."""
    sides = []
    for spec in inputs:
        for height, width in [spec.shape[2:4], spec.shape[1:3]] if len(spec.shape) == 4 else []:
            if height is not None and width is not None:
                sides.append((height, width))
    return sides


def _image_side(feeds: Feeds) -> tuple[int, int]:
    """Return (height, width) of the image among the feeds; colour channels come first or last."""
    for values in feeds.values():
        if values.ndim == 4:
            _, first, second, last = values.shape
            return (first, second) if last in (1, 3) and first not in (1, 3) else (second, last)
    raise TaskError("no input is an image", required="an input of rank 4", next_step="choose another task with --task")


def _check_target(target: Any) -> None:
    if not (isinstance(target, np.ndarray) and target.ndim == 2 and target.shape[1] == 5):
        raise DataError(
            f"a detection label is {target!r}"[:200],
            required="boxes [n, 5] of class, x1, y1, x2, y2",
            next_step="store the labels of an npz as `boxes` [n, 6] of image, class, x1, y1, x2, y2",
        )
