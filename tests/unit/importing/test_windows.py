from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgewise.forge.importing.passes import drop_unused
from edgewise.forge.importing.shapes import infer_shapes
from edgewise.forge.importing.windows import cascade_pools, convolve_blocks
from tests.unit.forge.nets import loaded
from tests.unit.runtimes.models import model_of


def rewritten(model: onnx.ModelProto, *, changed: bool) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    infer_shapes(made)
    assert (convolve_blocks(made) | cascade_pools(made)) is changed
    drop_unused(made)
    onnx.checker.check_model(made)
    return made


def differ(
    one: onnx.ModelProto, other: onnx.ModelProto, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> float:
    pairs = zip(loaded(one).run({"x": image}), loaded(other).run({"x": image}), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def focus(
    *, channels: int, block: int, kernel: int, stride: int, pads: list[int], order: list[int] | None, seed: int
) -> onnx.ModelProto:
    random = np.random.default_rng(seed)
    inputs = channels * block * block if order is None else len(order)
    values = {"w": random.standard_normal((5, inputs, kernel, kernel)).astype(np.float32)}
    values["b"] = random.standard_normal(5).astype(np.float32)
    nodes = [helper.make_node("SpaceToDepth", ["x"], ["blocks"], name="blocks", blocksize=block)]
    read = "blocks"
    if order is not None:
        values["order"] = np.array(order, np.int64)
        nodes.append(helper.make_node("Gather", ["blocks", "order"], ["ordered"], name="ordered", axis=1))
        read = "ordered"
    nodes.append(helper.make_node("Conv", [read, "w", "b"], ["y"], name="y", pads=pads, strides=[stride, stride]))
    size = 4 * block
    return model_of(nodes, inputs={"x": [1, channels, size, 2 * size]}, outputs=["y"], values=values)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_convolution_of_blocks_is_one_of_the_image(data: st.DataObject, seed: int) -> None:
    channels, block = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    every = list(range(channels * block * block))
    # Any channels in any order: some left out, some twice.
    order = data.draw(st.none() | st.permutations(every) | st.lists(st.sampled_from(every), min_size=1, max_size=9))
    pads = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    kernel, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    model = focus(channels=channels, block=block, kernel=kernel, stride=stride, pads=pads, order=order, seed=seed)
    made = rewritten(model, changed=True)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    image = np.random.default_rng(seed + 1).standard_normal((1, channels, 4 * block, 8 * block)).astype(np.float32)
    assert differ(model, made, image) < 1e-4


def test_a_convolution_whose_blocks_are_an_output_too_leaves_them_there() -> None:
    model = focus(channels=3, block=2, kernel=3, stride=1, pads=[1, 1, 1, 1], order=None, seed=0)
    model.graph.output.append(helper.make_tensor_value_info("blocks", onnx.TensorProto.FLOAT, None))
    made = rewritten(model, changed=True)
    assert sorted(node.op_type for node in made.graph.node) == ["Conv", "SpaceToDepth"]
    assert differ(model, made, np.ones((1, 3, 8, 16), np.float32)) < 1e-4


@pytest.mark.parametrize("change", ["group", "dilations"])
def test_a_grouped_or_dilated_convolution_of_blocks_is_left_alone(change: str) -> None:
    model = focus(channels=1, block=2, kernel=2, stride=1, pads=[0] * 4, order=[0, 1], seed=0)
    conv = model.graph.node[-1]
    if change == "group":
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((5, 1, 2, 2), np.float32), "w"))
        model.graph.node[1].CopyFrom(
            helper.make_node("Gather", ["blocks", "order"], ["ordered"], name="ordered", axis=1)
        )
        del model.graph.initializer[2]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(5) % 4, "order"))
    conv.attribute.append(helper.make_attribute(change, 5 if change == "group" else [2, 2]))
    rewritten(model, changed=False)


def pyramid(sizes: list[int], *, stride: int = 1) -> onnx.ModelProto:
    names = [f"p{at}" for at in range(len(sizes))]
    nodes = [
        helper.make_node("MaxPool", ["x"], [name], name=name, kernel_shape=[size] * 2, pads=[size // 2] * 4,
                         strides=[stride] * 2)
        for name, size in zip(names, sizes, strict=True)
    ]  # fmt: skip
    return model_of(nodes, inputs={"x": [1, 2, 9, 12]}, outputs=names)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 3, 5, 7, 9, 13]), min_size=1, max_size=4, unique=True), seed=st.integers(0, 99)
)
def test_a_pyramid_of_pools_is_exactly_what_it_was(sizes: list[int], seed: int) -> None:
    model = pyramid(sizes)
    made = rewritten(model, changed=len(sizes) > 1)
    image = np.random.default_rng(seed).standard_normal((1, 2, 9, 12)).astype(np.float32) - 5
    assert differ(model, made, image) == 0.0
    found = [onnx.helper.get_node_attr_value(node, "kernel_shape")[0] for node in made.graph.node]
    steps = [0, *sorted(set(sizes))]
    assert max(found) == max(b - a + (a > 0) for a, b in itertools.pairwise(steps))


def test_pools_that_move_further_are_left_alone() -> None:
    rewritten(pyramid([3, 5], stride=2), changed=False)


def test_a_pool_that_stands_before_a_smaller_one_is_moved_behind_it() -> None:
    model = pyramid([13, 5])
    model.graph.node.insert(1, helper.make_node("Neg", ["p0"], ["n"], name="n"))
    model.graph.output.append(helper.make_tensor_value_info("n", onnx.TensorProto.FLOAT, None))
    made = rewritten(model, changed=True)
    assert differ(model, made, np.random.default_rng(0).standard_normal((1, 2, 9, 12)).astype(np.float32)) == 0.0
