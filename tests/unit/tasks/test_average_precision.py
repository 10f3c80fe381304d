"""Parity with a plain reading of COCO's definition, one detection after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.forge.tasks.average_precision import mean_average_precision
from edgewise.forge.tasks.base import Array
from edgewise.forge.tasks.boxes import cross_iou, suppress

MOST = 100 / 101
"""Of this definition: the precision at a recall of exactly 1 counts as 0."""

Scored = tuple[float, int, Array]


def iou(box: Array, others: Array) -> Array:
    size = np.maximum(0, np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]))
    inter = size[:, 0] * size[:, 1]
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return np.asarray(inter / ((box[2] - box[0]) * (box[3] - box[1]) + areas - inter + 1e-9))


def plain_precision(detections: list[Scored], truth: dict[int, Array], threshold: float) -> float:
    used, hits = set(), []
    for _, image, box in detections:
        best, which = 0.0, -1
        for j, overlap in enumerate(iou(box, truth.get(image, np.empty((0, 4))))):
            if overlap > best and (image, j) not in used:
                best, which = overlap, j
        hits.append(best >= threshold)
        if best >= threshold:
            used.add((image, which))
    if not hits:
        return 0.0
    true = np.cumsum(hits)
    recall = np.concatenate([[0], true / sum(map(len, truth.values())), [1]])
    precision = np.concatenate([[0], true / np.arange(1, len(hits) + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.interp(np.linspace(0, 1, 101), recall, precision).mean())


def plain_map(detections: list[Array], labels: list[Array]) -> Array:
    per_class = []
    for label in np.unique(np.concatenate([each[:, 0] for each in labels])):
        truth = {i: each[each[:, 0] == label, 1:] for i, each in enumerate(labels)}
        scored: list[Scored] = [
            (row[4], i, row[:4]) for i, each in enumerate(detections) for row in each if row[5] == label
        ]
        scored.sort(key=lambda each: -each[0])
        per_class.append([plain_precision(scored, truth, 0.5 + 0.05 * k) for k in range(10)])
    return np.asarray(np.mean(per_class, 0))


def scene(generator: np.random.Generator, *, boxes: int = 6, classes: int = 3) -> tuple[Array, Array]:
    """Return label boxes [n, 5] and detections [m, 6]: the labels moved, doubled, and some of nothing."""
    corner = generator.uniform(0, 80, (boxes, 2))
    truth = np.concatenate(
        [generator.integers(0, classes, (boxes, 1)), corner, corner + generator.uniform(5, 40, (boxes, 2))], 1
    )
    again = truth[generator.integers(0, boxes, boxes + 4)] if boxes else truth
    moved = again[:, 1:] + generator.normal(0, 3, again[:, 1:].shape)
    moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1)
    found = np.concatenate([moved, generator.uniform(0, 1, (len(again), 1)), again[:, :1]], 1)
    return truth, found


@pytest.mark.parametrize("seed", range(12))
def test_as_the_plain_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scenes = [scene(generator, boxes=int(generator.integers(0, 7))) for _ in range(8)]
    labels, detections = [each[0] for each in scenes], [each[1] for each in scenes]
    found = mean_average_precision(detections, labels)
    assert found is not None
    assert 0.05 < found[0] < 0.99
    assert found == pytest.approx(plain_map(detections, labels), abs=1e-12)


def test_equal_scores_are_taken_in_order_of_the_images() -> None:
    box = np.array([[0, 0.0, 0, 10, 10]])
    hit, miss = np.array([[0, 0, 10, 10, 0.5, 0.0]]), np.array([[50, 50, 60, 60, 0.5, 0.0]])
    for order in ([hit, miss], [miss, hit]):
        found = mean_average_precision(order, [box, box])
        assert found == pytest.approx(plain_map(order, [box, box]))


def test_a_second_detection_of_one_object_is_wrong() -> None:
    label = [np.array([[0, 0.0, 0, 10, 10]]), np.array([[0, 20.0, 20, 30, 30]])]
    twice = np.array([[0, 0, 10, 10, 0.9, 0.0], [0, 0, 10, 10, 0.8, 0.0]])
    other = np.array([[20, 20, 30, 30, 0.1, 0.0]])
    found = mean_average_precision([twice, other], label)
    assert found is not None
    assert found[0] < 1


def test_classes_without_labels_do_not_count_and_none_without_any() -> None:
    label = [np.array([[1, 0.0, 0, 10, 10]])]
    found = mean_average_precision([np.array([[0, 0, 10, 10, 0.9, 1.0], [0, 0, 10, 10, 0.95, 2.0]])], label)
    assert found == pytest.approx(np.full(10, MOST))
    assert mean_average_precision([np.empty((0, 6))], [np.empty((0, 5))]) is None
    assert mean_average_precision([], []) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_perfect_detections_have_the_most(seed: int, images: int) -> None:
    generator = np.random.default_rng(seed)
    labels = [scene(generator)[0] for _ in range(images)]
    detections = [
        np.concatenate([each[:, 1:], generator.uniform(0.1, 1, (len(each), 1)), each[:, :1]], 1) for each in labels
    ]
    found = mean_average_precision(detections, labels)
    assert found is not None
    assert found == pytest.approx(np.full(10, MOST))


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.9))
def test_suppression_keeps_the_best_and_leaves_no_pair_that_overlaps(seed: int, overlap: float) -> None:
    table = scene(np.random.default_rng(seed))[1]
    kept = suppress(table, overlap=overlap)
    assert kept[:, 4].max() == np.float32(table[:, 4].max())
    same = kept[:, None, 5] == kept[None, :, 5]
    overlaps = cross_iou(kept.astype(np.float64), kept.astype(np.float64)) * same * (1 - np.eye(len(kept)))
    assert overlaps.max(initial=0) <= overlap + 1e-5
    assert np.array_equal(np.sort(suppress(kept, overlap=overlap), 0), np.sort(kept, 0))
