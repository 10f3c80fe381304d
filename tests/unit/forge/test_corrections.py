"""Equalisation, smoothing, moments, reconstruction: what is done to weights before they are lowered."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgewise.contracts.recipe import Format, Rounding
from edgewise.forge.equalise import channel_classes, channel_peaks, equalised
from edgewise.forge.graph import Graph
from edgewise.forge.moments import input_columns, moments
from edgewise.forge.parameters import from_rows, rows_of
from edgewise.forge.reconstruct import bias_shifts, reconstructed
from edgewise.forge.search.options import Style
from edgewise.forge.smooth import smoothing
from edgewise.forge.weights import Corrections, parameters_for
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.forge.nets import Array, Workshop, conv, conv_values, products, residual
from tests.unit.runtimes.models import model_of

STATIC = Format.INT8_STATIC


def equalise(shop: Workshop, alpha: float = 0.5) -> onnx.ModelProto:
    classes = channel_classes(shop.graph, shop.regions)
    peaks = channel_peaks(shop.graph, classes, shop.data, runtime=OnnxRuntime(), threads=1)
    return equalised(shop.graph, classes, peaks, alpha=alpha)


def spread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Scale the first block's channels apart and take it back behind its Relu: the function stays the same."""
    factor = np.logspace(-1.5, 1.5, 16).astype(np.float32)
    shapes = {"first_w": (-1, 1, 1, 1), "first_b": (-1,), "second_w": (1, -1, 1, 1)}
    for each in model.graph.initializer:
        if each.name in shapes:
            scale = (1 / factor if each.name == "second_w" else factor).reshape(shapes[each.name])
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * scale, each.name))
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_equalisation_changes_weights_and_not_the_function(alpha: float) -> None:
    shop = Workshop(spread(residual(six=False)))
    model = equalise(shop, alpha)
    changed = [
        one.name
        for one, two in zip(shop.model.graph.initializer, model.graph.initializer, strict=True)
        if one.raw_data != two.raw_data
    ]
    assert {"stem_w", "first_w", "second_w", "depth_w", "first_b"} <= set(changed)
    for one, two in zip(shop.outputs(shop.model), shop.outputs(model), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_equalisation_brings_int8_closer() -> None:
    shop = Workshop(spread(residual(six=False)))
    # Per tensor: with one weight scale for all channels the spread costs most.
    style = Style(per_channel=False)
    before = shop.sqnr_db(shop.build(shop.everywhere(STATIC), style))
    equal = Workshop(equalise(shop))
    assert equal.sqnr_db(equal.build(equal.everywhere(STATIC), style)) > before + 3


def tensors(model: onnx.ModelProto) -> set[str]:
    shop = Workshop(model, samples=1)
    return {name for each in channel_classes(shop.graph, shop.regions) for name in each.tensors}


def test_a_residual_stream_is_one_class_with_all_who_write_and_read_it() -> None:
    shop = Workshop(residual(six=False), samples=1)
    classes = {each.tensors: each for each in channel_classes(shop.graph, shop.regions)}
    stream = classes["second", "stem_relu", "sum_relu"]
    assert {each.name for each in stream.writers} == {"stem_relu", "second"}
    assert {each.name for each in stream.readers} == {"first_relu", "depth_act"}
    assert ("first_relu",) in classes
    assert len(classes) == 2


def test_a_class_ends_at_a_clip_an_output_or_a_sigmoid() -> None:
    assert "depth_act" not in tensors(residual())
    assert tensors(residual(six=False, outputs=("y", "sum_relu"))) == {"first_relu"}
    assert tensors(residual(six=False, outputs=("y", "first_relu"))) == {"second", "stem_relu", "sum_relu"}

    def chain(op: str, *, extra: tuple[str, ...] = ()) -> onnx.ModelProto:
        random = np.random.default_rng(0)
        values = conv_values(random, "a", 8, 3, 3) | conv_values(random, "b", 8, 8, 3)
        if extra:
            values |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
        nodes = [
            conv("a", "x", "a"),
            helper.make_node(op, ["a", *extra], ["act"], name="act"),
            conv("b", "act", "y"),
        ]
        return model_of(nodes, inputs={"x": [1, 3, 8, 8]}, outputs=["y"], values=values)

    assert tensors(chain("Relu")) == {"act"}
    assert tensors(chain("Sigmoid")) == set()
    assert tensors(chain("HardSwish")) == set()
    assert tensors(chain("Clip", extra=("low", "high"))) == set()


def clipped(*, depthwise: bool = True) -> onnx.ModelProto:
    """Conv with channels far apart, Clip(0, 6), a depthwise or a plain conv."""
    random = np.random.default_rng(3)
    inner = 1 if depthwise else 16
    values = conv_values(random, "a", 16, 3, 3) | conv_values(random, "b", 16, inner, 3)
    values |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    values["a_w"] *= np.logspace(-1.5, 1, 16, dtype=np.float32).reshape(-1, 1, 1, 1)
    nodes = [
        conv("a", "x", "a"),
        helper.make_node("Clip", ["a", "low", "high"], ["act"], name="act"),
        conv("b", "act", "y", group=16 if depthwise else 1),
    ]
    return model_of(nodes, inputs={"x": [1, 3, 8, 8]}, outputs=["y"], values=values)


def test_channels_beneath_a_clip_are_scaled_up_where_a_depthwise_convolution_reads_them() -> None:
    shop = Workshop(clipped())
    model = equalise(shop)
    before, after = (
        {each.name: numpy_helper.to_array(each) for each in one.graph.initializer} for one in (shop.model, model)
    )
    grown = (np.abs(after["a_w"]) / np.abs(before["a_w"])).reshape(16, -1).mean(axis=1)
    assert grown.min() == 1.0  # what the Clip cuts stays
    assert grown.max() > 4
    assert (grown > 1).sum() > 8
    for one, two in zip(shop.outputs(shop.model), shop.outputs(model), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    equal = Workshop(model)
    assert equal.sqnr_db(equal.build(equal.everywhere(STATIC))) > shop.sqnr_db(shop.build(shop.everywhere(STATIC)))


def test_channels_beneath_a_clip_stay_where_a_row_of_weights_reads_many() -> None:
    shop = Workshop(clipped(depthwise=False), samples=1)
    assert channel_classes(shop.graph, shop.regions) == ()


@pytest.mark.parametrize("name", ["stem_relu", "depth_act", "y"])
def test_moments_are_those_of_the_im2col_matrix(name: str) -> None:
    shop = Workshop(residual(), samples=3)
    region = shop.region(name)
    found = moments(shop.graph, [region], shop.data, range(3), grids={}, runtime=OnnxRuntime(), threads=1, seed=0)[name]
    session = OnnxRuntime().load(_with_output(shop, region.inputs[0]))
    columns = np.concatenate([_im2col(name, session.run(shop.data[at].feeds)[-1]) for at in range(3)], axis=2)
    count = columns.shape[2]
    np.testing.assert_allclose(found.second, columns @ columns.transpose(0, 2, 1) / count, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mean, columns.mean(axis=2), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.mean, found.mean_grid)


def _with_output(shop: Workshop, tensor: str) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(shop.model)
    node = helper.make_node("Identity", [tensor], ["watched"])
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("watched", onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def _im2col(name: str, values: Array) -> Array:
    """Return [groups, k, positions] by slicing every window, for 3x3 pads of 1."""
    if values.ndim == 2:
        return np.asarray(values.T[None], np.float64)
    groups = values.shape[1] if name == "depth_act" else 1
    padded = np.pad(values[0], [(0, 0), (1, 1), (1, 1)])
    _, height, width = values[0].shape
    windows = [
        padded[:, top : top + 3, left : left + 3].reshape(groups, -1) for top in range(height) for left in range(width)
    ]
    return np.asarray(np.stack(windows, axis=2), np.float64)


def test_strided_dilated_grouped_columns_reproduce_the_convolution() -> None:
    random = np.random.default_rng(0)
    values = {"w": random.standard_normal((6, 2, 3, 3)).astype(np.float32)}
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], name="y", strides=[2, 1], dilations=[1, 2], pads=[1, 2, 0, 3], group=2
    )
    shop = Workshop(model_of([node], inputs={"x": [1, 4, 9, 8]}, outputs=["y"], values=values), samples=1)
    (want,) = shop.outputs(shop.model)
    region = shop.region("y")
    x = np.asarray(shop.data[0].feeds["x"])
    columns = input_columns(shop.graph, region, x, limit=10**6, random=random)
    rows = rows_of(shop.graph, region, values["w"]).reshape(2, 3, -1)
    got = (rows @ columns).reshape(want.shape[1:])
    np.testing.assert_allclose(got, want[0], rtol=1e-4, atol=1e-5)


def test_rows_and_back_is_the_identity() -> None:
    shop = Workshop(residual())
    for shopped in (shop, Workshop(products())):
        for region in shopped.regions:
            if region.weight:
                weight = shopped.graph.constants[region.weight]
                rows = rows_of(shopped.graph, region, weight)
                np.testing.assert_array_equal(from_rows(shopped.graph, region, rows), weight)


def test_reconstruction_and_bias_shifts_reduce_the_error_of_a_convolution() -> None:
    random = np.random.default_rng(0)
    values = conv_values(random, "c", 16, 12, 3)
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="r"), conv("c", "r", "y")]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 12, 16, 16]}, outputs=["y"], values=values), samples=12)
    for index in range(len(shop.data)):  # correlated channels, which rounding can make use of
        shop.data[index].feeds["x"][:] += 2 * shop.data[index].feeds["x"][:, :1]
    coarse = Style(per_channel=False)
    recipe = shop.recipe({"y": STATIC}, coarse)
    parameters = parameters_for(shop.graph, shop.regions, recipe, shop.calibration, Corrections())
    region = shop.region("y")
    found = moments(
        shop.graph,
        [region],
        shop.data,
        range(12),
        grids=parameters.grids,
        runtime=OnnxRuntime(),
        threads=1,
        seed=0,
    )
    rounded = reconstructed(shop.graph, [region], parameters, found)
    rows = rows_of(shop.graph, region, values["c_w"])

    def loss(integers: Array) -> float:
        error = rows - integers * parameters.weights["y"].scale[:, None]
        return float(np.einsum("ok,kl,ol->", error, found["y"].second[0], error))

    assert loss(rounded["y"].values) < 0.8 * loss(parameters.weights["y"].values)
    shop.corrections = Corrections(
        rounded=rounded,
        bias_shift=bias_shifts(shop.graph, [region], parameters, parameters.weights, found),
        rounded_bias_shift=bias_shifts(shop.graph, [region], parameters, rounded, found),
    )
    expected = shop.outputs(shop.model)

    def offset(style: Style) -> float:
        got = shop.outputs(shop.build({"y": STATIC}, style))
        errors = np.concatenate([one - two for one, two in zip(got, expected, strict=True)])
        return float(np.abs(errors.mean(axis=(0, 2, 3))).mean())

    for rounding in Rounding:
        style = msgspec.structs.replace(coarse, rounding=rounding)
        assert offset(msgspec.structs.replace(style, bias_correction=True)) < 0.5 * offset(style)


def test_smoothing_helps_where_one_channel_is_an_outlier_and_is_left_out_where_none_is() -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((256, 64)).astype(np.float32)
    rows = [random.standard_normal((32, 64)).astype(np.float32) for _ in range(2)]
    wild = inputs.copy()
    wild[:, 7] *= 60

    def error(divisor: Array) -> float:
        total = 0.0
        for weight in rows:
            x = wild / divisor
            step = (x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True)) / 255
            scaled = weight * divisor
            scale = np.abs(scaled).max(axis=1, keepdims=True) / 127
            got = (np.rint(x / step) * step) @ (np.rint(scaled / scale) * scale).T
            total += float(((got - wild @ weight.T) ** 2).sum())
        return total

    alpha, divisor = smoothing(rows, np.abs(wild).max(axis=0), list(wild[:, None]))
    assert alpha is not None
    assert divisor[7] > 5 * np.median(divisor)
    assert error(divisor) < 0.5 * error(np.ones(64, np.float32))
    # Without any alpha to try, the answer is no smoothing.
    none, ones = smoothing(rows, np.abs(wild).max(axis=0), list(wild[:, None]), alphas=())
    assert none is None
    np.testing.assert_array_equal(ones, np.ones(64, np.float32))
    # alpha 1 would move the weights' own outlier into calm activations: worse, so it is refused.
    harsh = [each * np.where(np.arange(64) == 3, 100, 1).astype(np.float32) for each in rows]
    assert smoothing(harsh, np.abs(wild).max(axis=0), list(inputs[:, None]), alphas=(1.0,))[0] is None


def test_one_outlying_token_is_smoothed_for_the_others_of_its_sample() -> None:
    """Alone in its range a token that is large in one channel costs nobody else; in a sentence it does."""
    random = np.random.default_rng(0)
    sentences = [random.standard_normal((12, 64)).astype(np.float32) for _ in range(20)]
    for each in sentences:
        each[0, 5] *= 80  # the first token, as of a start of text
    largest = np.max([np.abs(each).max(axis=0) for each in sentences], axis=0)
    rows = [random.standard_normal((32, 64)).astype(np.float32)]
    together, divisor = smoothing(rows, largest, sentences)
    assert together is not None
    assert divisor[5] > 3 * np.median(divisor)
    apart, smaller = smoothing(rows, largest, [token[None] for each in sentences for token in each])
    assert (apart or 0.0) <= together
    assert smaller[5] <= divisor[5]


def test_smoothing_divides_the_input_and_multiplies_the_weight() -> None:
    shop = Workshop(products())
    divisor = np.linspace(0.25, 4, 128).astype(np.float32)
    shop.corrections = Corrections(smooth={"up_bias": divisor})
    style = Style(smooth={"up_bias": 0.5})
    model = shop.build({"up_bias": Format.INT8_DYNAMIC}, style)
    assert [node.op_type for node in model.graph.node][:2] == ["Mul", "DynamicQuantizeLinear"]
    assert shop.sqnr_db(model) > 20


def test_the_graph_itself_is_left_alone() -> None:
    shop = Workshop(spread(residual(six=False)))
    before = shop.model.SerializeToString(deterministic=True)
    Graph(equalise(shop))
    shop.build(shop.everywhere(STATIC))
    assert shop.model.SerializeToString(deterministic=True) == before


def test_thinned_moments_depend_on_the_seed_alone() -> None:
    random = np.random.default_rng(0)
    values = conv_values(random, "c", 4, 3, 3)
    shop = Workshop(model_of([conv("c", "x", "y")], inputs={"x": [1, 3, 64, 64]}, outputs=["y"], values=values))

    def second(seed: int) -> Array:
        region = shop.region("y")
        found = moments(
            shop.graph, [region], shop.data, range(4), grids={}, runtime=OnnxRuntime(), threads=1, seed=seed
        )
        return found["y"].second

    np.testing.assert_array_equal(second(0), second(0))
    assert (second(0) != second(1)).any()
    np.testing.assert_allclose(second(0), second(1), atol=0.2)
