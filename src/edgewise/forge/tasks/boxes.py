"""Boxes: decoding raw outputs, overlaps, non-maximum suppression.

Corners are x1, y1, x2, y2 in pixels of the model's input. A table of detections is float32
`[n, 6]`: corners, score, class.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.tasks.base import Array

COLUMNS = 6
MOST_CANDIDATES = 3000
"""Boxes above the threshold, best first, that enter suppression. A broken variant finds hundreds of
thousands, which would take minutes; a working one of 80 classes finds a few hundred."""
_LARGEST_LOG_SIZE = 20.0
"""Above any real size (e**20 strides) and below what overflows."""

Doubles = NDArray[np.float64]


@lru_cache(maxsize=8)
def yolox_grid(height: int, width: int, strides: tuple[int, ...]) -> tuple[Doubles, Doubles]:
    """Return the cells `[cells, 2]` (column, row) and strides `[cells, 1]` of an input of this size, finest first."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns, rows], 2).reshape(-1, 2).astype(np.float64))
        steps.append(np.full((len(cells[-1]), 1), float(stride)))
    return np.concatenate(cells), np.concatenate(steps)


def yolox_cells(height: int, width: int, strides: tuple[int, ...]) -> int:
    """Return how many rows a YOLOX head has for an input of this size."""
    return sum((height // stride) * (width // stride) for stride in strides)


def relative_corners(raw: Array) -> Doubles:
    """Return corners `[cells, 4]` of YOLOX rows in units of their stride, relative to their cell.

    Rows are centre x, y, log width, log height, and scores. Overlaps within one cell need no more than
    this: they ignore shift and scale.
    """
    centre = raw[:, :2].astype(np.float64)
    half = np.exp(np.minimum(raw[:, 2:4].astype(np.float64), _LARGEST_LOG_SIZE)) / 2
    return np.concatenate([centre - half, centre + half], 1)


def yolox_scores(raw: Array) -> Doubles:
    """Return class scores `[cells, classes]`: objectness times class probability, both already after sigmoid."""
    return raw[:, 4:5].astype(np.float64) * raw[:, 5:].astype(np.float64)


def paired_iou(left: Array, right: Array) -> Doubles:
    """Return the overlap (intersection over union) of box i of `left` with box i of `right`, both `[..., 4]`."""
    size = np.minimum(left[..., 2:4], right[..., 2:4]) - np.maximum(left[..., :2], right[..., :2])
    shared = np.maximum(size, 0).prod(-1)
    areas = [np.maximum(each[..., 2:4] - each[..., :2], 0).prod(-1) for each in (left, right)]
    return np.asarray(shared / (areas[0] + areas[1] - shared + 1e-9), np.float64)


def cross_iou(left: Array, right: Array) -> Doubles:
    """Return the overlaps `[n, m]` of every box of `left` `[n, 4]` with every box of `right` `[m, 4]`."""
    return paired_iou(left[:, None, :4], right[None, :, :4])


def suppress(table: Array, *, overlap: float) -> NDArray[np.float32]:
    """Return the rows that survive non-maximum suppression within their class, by class and best first.

    A row goes where a better one of its class overlaps it by more than `overlap`.
    """
    table = table[np.argsort(-table[:, 4], kind="stable")[:MOST_CANDIDATES]]
    kept = []
    for label in np.unique(table[:, 5]):
        left = table[table[:, 5] == label]
        while len(left):
            kept.append(left[0])
            left = left[1:][paired_iou(left[:1, :4], left[1:, :4]) <= overlap]
    return np.array(kept, np.float32).reshape(-1, COLUMNS)


def candidates(corners: Doubles, scores: Doubles, *, threshold: float) -> Doubles:
    """Return a table `[n, 6]` of every cell and class whose score is above the threshold; NaN never is."""
    cell, label = np.nonzero(scores > threshold)
    table: Doubles = np.concatenate([corners[cell], scores[cell, label, None], label[:, None].astype(np.float64)], 1)
    return table[np.isfinite(table).all(1)]
