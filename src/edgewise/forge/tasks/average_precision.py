"""Mean average precision as COCO defines it: 101 recall points, overlaps from 0.50 to 0.95.

Lin et al., "Microsoft COCO", and its evaluation code: for one class the detections of all images are
walked from the best score down; each takes the free label box of its image that it overlaps most.
Differences to pycocotools: no crowd boxes, no limit of 100 detections per image, and precision is
interpolated between the recalls that occur, down to 0 at a recall of 1: the most is 100/101. Only
classes that have labels count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.tasks.base import Array
from edgewise.forge.tasks.boxes import Doubles, cross_iou

THRESHOLDS = np.array([0.5 + 0.05 * step for step in range(10)])
_RECALLS = np.linspace(0, 1, 101)


def mean_average_precision(detections: Sequence[Array], labels: Sequence[Array]) -> Doubles | None:
    """Return mAP at each of THRESHOLDS; None where no image has a label box.

    Per image: detections `[n, 6]` (corners, score, class) and label boxes `[m, 5]` (class, corners).
    """
    present = np.unique(np.concatenate([each[:, 0] for each in labels])) if labels else np.array([])
    if not present.size:
        return None
    return np.asarray(np.stack([_class_precision(label, detections, labels) for label in present]).mean(0), np.float64)


def _class_precision(label: float, detections: Sequence[Array], labels: Sequence[Array]) -> Doubles:
    """Return the average precision of one class at each threshold."""
    scores, hits, total = [], [], 0
    for found, known in zip(detections, labels, strict=True):
        mine, truth = found[found[:, 5] == label], known[known[:, 0] == label, 1:5]
        mine = mine[np.argsort(-mine[:, 4], kind="stable")]
        total += len(truth)
        scores.append(mine[:, 4])
        hits.append(_hits(mine, truth))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.array([_interpolated(column[order], total) for column in np.concatenate(hits).T])


def _hits(mine: Array, truth: Array) -> NDArray[np.bool_]:
    """Return `[detections, thresholds]`: whether each detection of one image, best first, takes a label box.

    Images do not share boxes, so they can be matched one by one before scores are merged.
    """
    hits = np.zeros((len(mine), len(THRESHOLDS)), np.bool_)
    if not len(truth):
        return hits
    free = np.ones((len(THRESHOLDS), len(truth)), np.bool_)
    overlaps = cross_iou(mine.astype(np.float64), truth.astype(np.float64))
    for index in np.flatnonzero(overlaps.max(1) >= THRESHOLDS[0]):
        open_to = np.where(free, overlaps[index], 0.0)
        best = open_to.argmax(1)
        hits[index] = open_to.max(1) >= THRESHOLDS
        free[hits[index], best[hits[index]]] = False
    return hits


def _interpolated(hits: NDArray[np.bool_], total: int) -> float:
    """Return the mean over 101 recalls of the best precision at that recall or beyond; 0 at recall 1."""
    if not len(hits):
        return 0.0
    true = np.cumsum(hits)
    recall = np.concatenate([[0], true / total, [1]])
    precision = np.concatenate([[0], true / np.arange(1, len(hits) + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.interp(_RECALLS, recall, precision).mean())
