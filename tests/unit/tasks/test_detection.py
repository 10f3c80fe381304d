from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.task import DetectionOptions
from edgewise.errors import DataError, TaskError
from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.tasks.boxes import MOST_CANDIDATES, yolox_cells
from edgewise.forge.tasks.detection import BOXES, YOLOX, Detection, detection_layout
from edgewise.runtimes.base import TensorSpec

SIDE = (64, 96)
STRIDES = (8, 16, 32)
CELLS = yolox_cells(*SIDE, STRIDES)
CLASSES = 4
FEEDS: Feeds = {"image": np.zeros((1, 3, *SIDE), np.float32)}
TASK = Detection(layout=YOLOX)
TABLES = Detection(layout=BOXES)


def raw(seed: int) -> Array:
    """Return a YOLOX output with a few clear objects."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0, 0.5, (1, CELLS, 5 + CLASSES))
    values[..., 4:] = generator.uniform(0, 0.05, (1, CELLS, 1 + CLASSES))
    live = generator.integers(0, CELLS, 6)
    values[0, live, 4] = generator.uniform(0.5, 1, 6)
    values[0, live, 5 + generator.integers(0, CLASSES, 6)] = generator.uniform(0.5, 1, 6)
    return values.astype(np.float32)


def test_yolox_rows_become_boxes_in_pixels() -> None:
    values = np.zeros((1, CELLS, 5 + CLASSES), np.float32)
    values[0, 12 + 3, :4] = (0.5, 0.25, np.log(2), np.log(4))  # stride 8, row 1, column 3
    values[0, 12 + 3, 4], values[0, 12 + 3, 7] = 0.5, 0.8
    (box,) = TASK.predict((values,), FEEDS)
    centre_x, centre_y = (3 + 0.5) * 8, (1 + 0.25) * 8
    assert box == pytest.approx([centre_x - 8, centre_y - 16, centre_x + 8, centre_y + 16, 0.4, 2])


def test_images_with_channels_last_have_the_same_grid() -> None:
    turned: Feeds = {"image": np.zeros((1, *SIDE, 3), np.float32)}
    assert np.array_equal(TASK.predict((raw(0),), FEEDS), TASK.predict((raw(0),), turned))


def test_a_table_of_boxes_is_filtered_and_suppressed() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9, 1], [0, 0, 9, 8.9, 0.8, 1], [0, 0, 9, 9, 0.7, 0], [1, 1, 2, 2, 0.001, 0]])
    assert TABLES.predict((rows[None],), {})[:, 4].tolist() == pytest.approx([0.7, 0.9])


def test_score_is_map_and_none_without_labels() -> None:
    boxes = TASK.predict((raw(1),), FEEDS)
    label = np.concatenate([boxes[:, 5:], boxes[:, :4]], 1)
    score = TASK.score([boxes], [label])
    assert score is not None
    assert score.value == pytest.approx(100 / 101)
    assert score.metrics == pytest.approx({"map50_95": 100 / 101, "map50": 100 / 101})
    assert TASK.score([boxes], [None]) is None
    assert TASK.score([boxes], [np.empty((0, 5))]) is None


def test_a_label_that_is_no_table_of_boxes_is_refused() -> None:
    with pytest.raises(DataError, match="boxes"):
        TASK.score([np.empty((0, 6))], [3])


def test_a_broken_variant_finds_nothing_and_is_infinitely_far() -> None:
    broken = np.full((1, CELLS, 5 + CLASSES), np.nan, np.float32)
    assert len(TASK.predict((broken,), FEEDS)) == 0
    assert TASK.divergence((raw(0),), (broken,)) == np.inf
    assert TABLES.divergence((np.zeros((1, 2, 6)),), (np.full((1, 2, 6), np.nan),)) == np.inf


def test_a_variant_that_finds_everything_everywhere_is_cut_short() -> None:
    loud = raw(0)
    loud[..., 4:] = np.random.default_rng(0).uniform(0.9, 1, loud[..., 4:].shape)
    many = np.tile(loud, (1, 40, 1))
    table = np.concatenate([np.arange(4 * len(many[0])).reshape(-1, 4) * 10.0, np.ones((len(many[0]), 2))], 1)
    table[:, 2:4] = table[:, :2] + 1
    assert len(TABLES.predict((table[None],), {})) <= MOST_CANDIDATES
    assert len(TASK.predict((loud,), FEEDS)) <= MOST_CANDIDATES


def test_huge_sizes_do_not_overflow() -> None:
    values = raw(0)
    values[..., 2:4] = 1e4
    assert np.isfinite(TASK.predict((values,), FEEDS)).all()


def test_rows_that_do_not_fit_the_image_are_an_error() -> None:
    with pytest.raises(TaskError, match="rows"):
        TASK.predict((raw(0)[:, :-1],), FEEDS)
    with pytest.raises(TaskError, match="image"):
        TASK.predict((raw(0),), {"x": np.zeros((1, 3))})


def test_flips_are_lost_best_boxes() -> None:
    best = np.array([[0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.8, 1]], np.float32)
    swapped = best.copy()
    swapped[:, 4] = (0.8, 0.9)  # two equals that change places are no flip
    other_class, moved = best.copy(), best.copy()
    other_class[0, 5] = 2
    moved[0, :4] += 20
    nothing = np.empty((0, 6), np.float32)
    faint = np.array([[0, 0, 10, 10, 0.015, 1]], np.float32)
    reference = [best, best, best, best, faint, nothing]
    candidate = [swapped, other_class, moved, nothing, nothing, nothing]
    assert TASK.flips(reference, candidate).tolist() == [False, True, True, True, False, False]
    assert TASK.flips([nothing, best[1:]], [best, best]).tolist() == [True, True]


def test_divergence_grows_with_the_damage_and_ignores_what_nobody_reports() -> None:
    values, generator = raw(0), np.random.default_rng(1)
    noise = generator.normal(0, 1, values[..., :4].shape)
    damage = []
    for scale in (0.01, 0.1, 1):
        moved = values.copy()
        moved[..., :4] += scale * noise
        damage.append(TASK.divergence((values,), (moved,)))
    assert 0 < damage[0] < damage[1] < damage[2]
    quiet = values.copy()
    below = (values[0, :, 4:5] * values[0, :, 5:]).max(1) < 0.01
    quiet[0, below, :4] += 5
    assert TASK.divergence((values,), (quiet,)) == 0


def test_divergence_of_tables_bears_missing_and_moved_rows() -> None:
    rows = np.array([[[0, 0, 9, 9, 0.9, 1], [20, 20, 30, 30, 0.8, 2]]])
    assert TABLES.divergence((rows,), (rows[:, ::-1],)) == pytest.approx(0, abs=1e-9)
    missing = TABLES.divergence((rows,), (rows[:, :1],))
    assert 0 < missing < TABLES.divergence((rows,), (rows[:, :0],))


def test_layout_is_recognised() -> None:
    image = (TensorSpec("image", "float32", (1, 3, *SIDE)),)
    head = (TensorSpec("out", "float32", (1, CELLS, 9)),)
    table = (TensorSpec("out", "float32", (1, None, 6)),)
    any_size = (TensorSpec("image", "float32", (1, 3, None, None)),)
    options = DetectionOptions()
    assert detection_layout(options, outputs=head, inputs=image) == YOLOX
    assert detection_layout(options, outputs=table, inputs=image) == BOXES
    assert detection_layout(options, outputs=head, inputs=any_size) == YOLOX
    assert detection_layout(DetectionOptions(layout="boxes"), outputs=table, inputs=image) == BOXES


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((1, 100, 9), "auto"), ((1, 84, CELLS), "auto"), ((1, CELLS, 9), "boxes"), ((1, 5), "yolox"), ((1, 5, 7), "ssd")],
)
def test_other_layouts_are_refused(shape: tuple[int, ...], layout: str) -> None:
    image = (TensorSpec("image", "float32", (1, 3, *SIDE)),)
    with pytest.raises(TaskError, match="layout"):
        detection_layout(DetectionOptions(layout=layout), outputs=(TensorSpec("out", "float32", shape),), inputs=image)


def test_answers_are_readable() -> None:
    assert TASK.answer(np.array([[1, 2, 3, 4, 0.5, 7]], np.float32)) == "7 (0.50) at 1,2,3,4"
    assert TASK.answer(np.empty((0, 6))) == "nothing"


@given(st.integers(0, 2**32 - 1))
def test_equal_outputs_do_not_diverge_or_flip(seed: int) -> None:
    values = raw(seed)
    boxes = TASK.predict((values,), FEEDS)
    assert TASK.divergence((values,), (values.copy(),)) == 0
    assert TABLES.divergence((boxes[None],), (boxes[None].copy(),)) == 0
    assert not TASK.flips([boxes], [boxes]).any()


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_flips_are_symmetric(one: int, two: int) -> None:
    a, b = TASK.predict((raw(one),), FEEDS), TASK.predict((raw(two),), FEEDS)
    assert TASK.flips([a], [b]).tolist() == TASK.flips([b], [a]).tolist()
    assert TASK.divergence((raw(one),), (raw(two),)) >= 0
