"""Which weights a layer's own way of rounding explains, and which it does not."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgewise.forge.graph import Graph
from edgewise.forge.verify.explain import How, explain
from edgewise.forge.verify.weights import Weight, paired, read
from edgewise.numerics.packing import pack_nbits

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


def blocks(w: NDArray[np.float32], *, bits: int) -> tuple[Graph, Graph]:
    """Return a product with a weight [K, N], and the same with the weight rounded in blocks of 32."""
    k, n = w.shape
    packed, scales, zeros = pack_nbits(w, bits=bits, block=32, asymmetric=bits == 4)
    held: dict[str, NDArray[Any]] = {"q": packed, "s": scales}
    if zeros is not None:
        held["z"] = zeros
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    rounded_product = helper.make_node(
        "MatMulNBits", ["x", *held], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=32
    )
    graphs = []
    exact: dict[str, NDArray[Any]] = {"w": w}
    for node, constants in ((product, exact), (rounded_product, held)):
        ends = (helper.make_tensor_value_info(*each) for each in (("x", 1, [1, k]), ("y", 1, [1, n])))
        tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        made = helper.make_graph([node], "g", [next(ends)], [next(ends)], tensors)
        domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        graphs.append(Graph(helper.make_model(made, opset_imports=domains)))
    return graphs[0], graphs[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_the_end_that_a_symmetric_block_cuts_off_is_no_change(bits: int) -> None:
    w = np.random.default_rng(0).uniform(-0.9, 0.5, (128, 48)).astype(np.float32)
    w[0], w[1, :2] = -1.0, 0.999  # level 0 of 256; 127.9 steps above the middle, where 127 is the end
    reference, variant = blocks(w, bits=bits)
    (mine, its), *_ = paired(reference, variant)
    before, after = read(reference, mine), read(variant, its) if its is not None else None
    assert before is not None
    assert after is not None
    assert explain(before, after).changes == ()
    changed = after.rows.copy()
    changed[7, 5] += 1
    assert [each.row for each in explain(before, msgspec.structs.replace(after, rows=changed)).changes] == [7]
