from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.contracts.recipe import Format, RangeMethod, Signs
from edgewise.forge.calibrate import Calibration
from edgewise.forge.graph import Graph, clip_bounds
from edgewise.forge.ranges import grids, shared_grids
from edgewise.forge.regions import Kind, macs, regions_of
from edgewise.numerics.histogram import Histogram
from tests.unit.forge.nets import Array, Workshop, conv, conv_chain, conv_values, products, recurrent, residual
from tests.unit.runtimes.models import branching, model_of


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_every_node_is_in_exactly_one_region(seed: int, length: int) -> None:
    shop = Workshop(conv_chain(seed, length), samples=1)
    owned = [index for region in shop.regions for index in region.nodes]
    assert sorted(owned) == list(range(len(shop.graph.nodes)))
    assert len({region.name for region in shop.regions}) == len(shop.regions)
    assert all(region.name == region.output for region in shop.regions)


def test_the_small_resnet_is_cut_as_its_kernels_run() -> None:
    shop = Workshop(residual(), samples=1)
    found = {region.name: (region.kind, region.op, len(region.nodes), region.bounds) for region in shop.regions}
    assert found == {
        "stem_relu": (Kind.CONV, "Conv", 2, (0.0, np.inf)),
        "first_relu": (Kind.CONV, "Conv", 2, (0.0, np.inf)),
        "second": (Kind.CONV, "Conv", 1, None),
        "sum_relu": (Kind.ELEMENTWISE, "Add", 2, (0.0, np.inf)),
        "depth_act": (Kind.CONV, "Conv", 2, (0.0, 6.0)),
        "pooled": (Kind.ELEMENTWISE, "GlobalAveragePool", 1, None),
        "flat": (Kind.PASS, "Flatten", 1, None),
        "y": (Kind.GEMM, "Gemm", 1, None),
    }
    assert shared_grids(shop.regions) == {"flat": "pooled"}


def clipped(low: float | None, high: float | None, *, outputs: tuple[str, ...] = ("y",)) -> Workshop:
    values: dict[str, Array] = conv_values(np.random.default_rng(0), "c", 4, 3, 3)
    names = []
    for name, value in (("low", low), ("high", high)):
        names.append("" if value is None else name)
        if value is not None:
            values[name] = np.array(value, np.float32)
    nodes = [conv("c", "x", "c"), helper.make_node("Clip", ["c", *names], ["y"], name="y")]
    return Workshop(model_of(nodes, inputs={"x": [1, 3, 8, 8]}, outputs=outputs, values=values), samples=2)


@pytest.mark.parametrize(
    ("low", "high", "absorbed"),
    [(0, 6, True), (-1, 1, True), (None, 3, True), (0, None, True), (1, 2, False), (-3, -1, False), (0.5, None, False)],
)
def test_a_clip_is_absorbed_only_where_saturation_expresses_it(
    low: float | None,
    high: float | None,
    absorbed: bool,  # noqa: FBT001 - a column of the table
) -> None:
    shop = clipped(low, high)
    assert [len(region.nodes) for region in shop.regions] == ([2] if absorbed else [1, 1])
    model = shop.build(shop.everywhere(Format.INT8_STATIC))
    assert shop.sqnr_db(model) > 20
    for each in shop.outputs(model):
        assert each.min() >= (-np.inf if low is None else low) - 0.02
        assert each.max() <= (np.inf if high is None else high) + 0.02


def test_a_clip_stays_where_its_input_is_read_elsewhere() -> None:
    assert [len(region.nodes) for region in clipped(0, 6, outputs=("y", "c")).regions] == [1, 1]


def test_bounds_limit_the_grid_whatever_the_histogram_says() -> None:
    shop = clipped(0, 6)
    histogram = Histogram()
    histogram.update(np.linspace(-2, 9, 1000, dtype=np.float32))
    calibration = Calibration(histograms={"x": histogram, "y": histogram}, channels={}, elements={}, samples=1)
    for signs in Signs:
        made = grids(calibration, shop.regions, {}, default=RangeMethod.MIN_MAX, signs=signs)
        assert float(made["y"].low) == pytest.approx(0.0, abs=1e-6)
        assert float(made["y"].high) == pytest.approx(6.0, abs=1e-5)
        assert float(made["x"].low) == pytest.approx(-2.0, abs=0.05)


def test_a_matmul_takes_its_bias_and_only_a_bias() -> None:
    shop = Workshop(products(), samples=1)
    assert [(region.name, region.kind, region.bias) for region in shop.regions] == [
        ("up_bias", Kind.MATMUL, "up_b"),
        ("up_relu", Kind.FLOAT, None),
        ("y", Kind.MATMUL, None),
    ]
    weight = {"w": np.ones((8, 4), np.float32), "row": np.ones((3, 4), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="p"),
        helper.make_node("Add", ["p", "row"], ["y"], name="y"),
    ]
    model = model_of(nodes, inputs={"x": [3, 8]}, outputs=["y"], values=weight)
    assert [len(region.nodes) for region in Workshop(model, samples=1).regions] == [1, 1]


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, Kind.GEMM),
        ({"transB": 1}, Kind.GEMM),
        ({"alpha": 0.5}, Kind.FLOAT),
        ({"beta": 2.0}, Kind.FLOAT),
        ({"transA": 1}, Kind.FLOAT),
    ],
)
def test_only_a_plain_gemm_is_quantized_and_all_compute_the_same(attributes: dict[str, Any], kind: Kind) -> None:
    random = np.random.default_rng(0)
    values = {"w": random.standard_normal((16, 16)).astype(np.float32), "b": np.ones(16, np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="y", **attributes)
    shop = Workshop(model_of([node], inputs={"x": [16, 16]}, outputs=["y"], values=values))
    assert shop.regions[0].kind is kind
    for form in shop.regions[0].formats:
        assert shop.sqnr_db(shop.build({"y": form})) > (12 if form is Format.INT4_WEIGHT else 30)


def test_weights_that_are_computed_are_no_weights() -> None:
    nodes = [
        helper.make_node("Neg", ["w"], ["v"], name="v"),
        helper.make_node("MatMul", ["x", "v"], ["y"], name="y"),
    ]
    model = model_of(nodes, inputs={"x": [4, 8], "w": [8, 8]}, outputs=["y"])
    shop = Workshop(model)
    assert [region.kind for region in shop.regions] == [Kind.FLOAT, Kind.PRODUCT]
    assert shop.sqnr_db(shop.build({"y": Format.INT8_STATIC})) > 30


def test_an_if_reads_what_its_branches_capture() -> None:
    shop = Workshop(branching(), samples=2)
    choice = next(index for index, node in enumerate(shop.graph.nodes) if node.op_type == "If")
    assert choice in shop.graph.consumers["x"]
    assert {region.kind for region in shop.regions} == {Kind.FLOAT}
    assert "x" in shop.regions[-1].inputs
    for one, two in zip(shop.outputs(shop.model), shop.outputs(shop.build({})), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_captured_tensor_is_given_as_floats_too() -> None:
    values = conv_values(np.random.default_rng(0), "c", 4, 3, 3) | {"yes": np.array([True]).reshape(())}
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = {
        f"{side}_branch": helper.make_graph([helper.make_node(op, ["c"], ["inner"])], side, [], [inner])
        for side, op in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [conv("c", "x", "c"), helper.make_node("If", ["yes"], ["y"], name="y", **branch)]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 3, 8, 8]}, outputs=["y"], values=values))
    assert shop.sqnr_db(shop.build({"c": Format.INT8_STATIC})) > 25


def test_macs_are_counted_by_hand() -> None:
    shop = Workshop(residual(), samples=1)
    counted = {region.name: macs(shop.graph, region) for region in shop.regions}
    assert counted["stem_relu"] == 16 * 16 * 16 * 3 * 9
    assert counted["depth_act"] == 16 * 16 * 16 * 9
    assert counted["y"] == 160
    assert counted["pooled"] == 0
    feed_forward = Workshop(products(), samples=1)
    assert [macs(feed_forward.graph, each) for each in feed_forward.regions] == [6 * 128 * 256, 0, 6 * 256 * 128]
    dynamic = onnx.shape_inference.infer_shapes(
        model_of(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="y")],
            inputs={"x": ["n", "t", 8]},
            outputs=["y"],
            values={"w": np.ones((8, 4), np.float32)},
        )
    )
    graph = Graph(dynamic)
    assert macs(graph, regions_of(graph)[0]) is None


def test_an_lstm_is_a_region_of_its_own() -> None:
    shop = Workshop(recurrent(), samples=1)
    assert [(region.kind, region.inputs) for region in shop.regions] == [(Kind.LSTM, ("x",))]


def test_clip_bounds_come_from_old_attributes_too() -> None:
    graph = Graph(model_of([], inputs={"x": [1]}, outputs=["x"], values={"low": np.array(1, np.float32)}))
    old = helper.make_node("Clip", ["x"], ["y"], min=-1.0, max=2.0)
    assert clip_bounds(graph, old) == (-1.0, 2.0)
    assert clip_bounds(graph, helper.make_node("Clip", ["x", "low"], ["y"])) == (1.0, np.inf)
    assert clip_bounds(graph, helper.make_node("Clip", ["x", "x"], ["y"])) is None
    assert clip_bounds(graph, helper.make_node("Relu", ["x"], ["y"])) == (0.0, np.inf)
    assert clip_bounds(graph, helper.make_node("Tanh", ["x"], ["y"])) is None
