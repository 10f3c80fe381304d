"""Weights that are stored as fp16 are fp32's, rounded; a changed one is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise.contracts.recipe import Format
from edgewise.forge.graph import Graph
from edgewise.forge.verify.explain import Explained, How, explain
from edgewise.forge.verify.weights import paired, read
from tests.unit.forge.nets import Workshop, residual


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(residual())


def explained(shop: Workshop, variant: onnx.ModelProto) -> list[Explained]:
    found = []
    other = Graph(onnx.shape_inference.infer_shapes(variant))
    for mine, theirs in paired(shop.graph, other):
        assert theirs is not None
        before, after = read(shop.graph, mine), read(other, theirs)
        assert before is not None
        assert after is not None
        found.append(explain(before, after))
    return found


def test_every_layer_is_fp32s_rounded_to_the_nearest_fp16(shop: Workshop) -> None:
    found = explained(shop, shop.build(shop.everywhere(Format.FP16)))
    assert len(found) == 5
    assert {each.how for each in found} == {How.NEAREST}
    assert not any(each.changes for each in found)


def test_a_weight_that_was_changed_is_found(shop: Workshop) -> None:
    model = shop.build(shop.everywhere(Format.FP16))
    stored = next(each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16)
    values = numpy_helper.to_array(stored).copy()
    values.flat[3] *= np.float16(1.01)
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    changes = [change for each in explained(shop, model) for change in each.changes]
    assert [(each.row, each.index) for each in changes] == [(0, 3)]
