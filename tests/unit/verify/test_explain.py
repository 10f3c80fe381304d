"""Which weights a layer's own way of rounding explains, and which it does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.verify.explain import How, explain
from edgewise.forge.verify.weights import Weight

ROWS, WIDTH = 40, 9
STEP = 0.01


def weight(rows: NDArray[np.float64]) -> Weight:
    step = np.full(rows.shape, STEP, np.float32)
    return Weight(
        name="w", stored="w", op="Conv", rows=np.asarray(rows, np.float32), step=step, edge=None, bias=None,
        bias_step=None,
    )  # fmt: skip


def rounded(w: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.rint(w / STEP) * STEP)


FP32 = np.random.default_rng(0).normal(scale=0.4, size=(ROWS, WIDTH))


def test_rows_that_error_feedback_left_as_nearest_do_not_make_the_others_suspect() -> None:
    """GPTQ changes a part of the rows of a depthwise layer only: a quarter is its habit, not a quarter of changes."""
    found = rounded(FP32)
    found[::4, 3] += STEP
    explained = explain(weight(FP32), weight(found))
    assert explained.how is How.LEARNED
    assert explained.changes == ()


def test_two_rows_of_a_layer_that_is_rounded_to_nearest_are_named() -> None:
    found = rounded(FP32)
    found[[5, 17], 3] += STEP
    explained = explain(weight(FP32), weight(found))
    assert explained.how is How.NEAREST
    assert [(each.row, each.index) for each in explained.changes] == [(5, 3), (17, 3)]


def test_far_weights_are_named_whatever_the_layers_way() -> None:
    found = rounded(FP32)
    found[::4, 3] += STEP
    found[7, 2] += 20 * STEP
    assert [each.row for each in explain(weight(FP32), weight(found)).changes] == [7]


def test_where_factors_are_read_from_the_variant_two_steps_are_allowed() -> None:
    found = rounded(FP32)
    found[5, 3] += STEP
    found[6, 3] += 3 * STEP
    assert [each.row for each in explain(weight(FP32), weight(found), is_rescaled=True).changes] == [6]


def test_a_layer_that_is_known_to_be_learned_may_have_single_rows_beyond_nearest() -> None:
    found = rounded(FP32)
    found[5, 3] += STEP
    assert explain(weight(FP32), weight(found), is_learned=True).changes == ()
