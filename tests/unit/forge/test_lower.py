from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgewise.contracts.recipe import Format, Recipe, RegionRecipe, Signs
from edgewise.errors import ModelError
from edgewise.forge.search.options import Style
from tests.unit.forge.nets import Workshop, conv_chain, gated, kernels, loaded, products, recurrent, residual, sqnr_db
from tests.unit.runtimes.models import model_of

STATIC = Format.INT8_STATIC


@pytest.fixture(scope="module")
def net() -> Workshop:
    return Workshop(residual())


@pytest.fixture(scope="module")
def dense() -> Workshop:
    return Workshop(products())


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def test_static_int8_fuses_every_region_and_crosses_one_border_each_way(net: Workshop) -> None:
    model = net.build(net.everywhere(STATIC))
    found = kernels(model)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["MatMulIntegerToFloat"] == 1
    assert found["QuantizeLinear"] == 1
    assert not found.keys() & {"Conv", "Add", "Relu", "Clip", "GlobalAveragePool", "Gemm", "DequantizeLinear"}
    assert net.sqnr_db(model) > 25


def test_activation_scales_are_0_d_and_weight_scales_per_channel(net: Workshop) -> None:
    values = constants(net.build(net.everywhere(STATIC)))
    scales = {name: value.shape for name, value in values.items() if name.endswith("scale")}
    assert all(shape == () for name, shape in scales.items() if "/weight" not in name and "/bias" not in name)
    assert scales["stem_relu/weight_scale"] == (16,)
    assert scales["y/weight_scale"] == (10,)


def test_per_tensor_weights_have_0_d_scales_and_lose_more(net: Workshop) -> None:
    model = net.build(net.everywhere(STATIC), Style(per_channel=False))
    shapes = {value.shape for name, value in constants(model).items() if name.endswith("scale")}
    assert shapes == {()} or all(
        value.shape == () or len(set(value.ravel().tolist())) == 1
        for name, value in constants(model).items()
        if name.endswith("scale")
    )
    assert 20 < net.sqnr_db(model) < net.sqnr_db(net.build(net.everywhere(STATIC)))


def test_s8s8_stores_signed_activations_and_stays_close(net: Workshop) -> None:
    model = net.build(net.everywhere(STATIC), Style(signs=Signs.S8S8))
    points = {value.dtype for name, value in constants(model).items() if name.endswith("zero_point")}
    assert points == {np.dtype(np.int8), np.dtype(np.int32)}
    # On x86 ONNX Runtime makes them unsigned first, except where a tensor has two readers.
    assert kernels(model)["QLinearConv"] == 2
    assert kernels(model, {"session.qdqisint8allowed": "1"})["QLinearConv"] == 4
    assert net.sqnr_db(model) > 35


def test_int16_activations_are_closer_than_int8(net: Workshop) -> None:
    model = net.build(net.everywhere(Format.INT16_STATIC))
    assert any(value.dtype == np.uint16 for value in constants(model).values())
    assert net.sqnr_db(model) > net.sqnr_db(net.build(net.everywhere(STATIC)))


def test_int16_products_run_with_and_without_bias(dense: Workshop) -> None:
    assert dense.sqnr_db(dense.build(dense.everywhere(Format.INT16_STATIC))) > 35


def test_a_clip_is_expressed_by_its_outputs_range(net: Workshop) -> None:
    model = net.build(net.everywhere(STATIC))
    values = constants(model)
    scale = float(values["depth_act/scale"])
    point = int(values["depth_act/zero_point"])
    assert point == 0
    assert (255 - point) * scale <= 6.0 + 1e-5
    assert not any(node.op_type in ("Clip", "Relu") for node in model.graph.node)


@pytest.mark.parametrize("name", ["stem_relu", "sum_relu", "depth_act", "pooled", "y"])
def test_a_region_alone_has_fp32_borders_on_both_sides(net: Workshop, name: str) -> None:
    model = net.build({name: STATIC})
    found = kernels(model)
    borders = len(net.region(name).inputs)
    assert found["QuantizeLinear"] == borders
    # ONNX Runtime gives each of stem_relu's two readers a DequantizeLinear of its own.
    assert found["DequantizeLinear"] == {"y": 0, "stem_relu": 2}.get(name, 1)
    assert found["Conv"] + found["FusedConv"] == 4 - (net.region(name).op == "Conv")
    assert net.sqnr_db(model) > 30


def test_an_output_that_integers_read_too_is_given_as_floats() -> None:
    net = Workshop(residual(outputs=("y", "stem_relu")))
    model = net.build(net.everywhere(STATIC))
    found = kernels(model)
    assert found["QLinearConv"] == 4
    assert found["DequantizeLinear"] == 1
    session = loaded(model)
    assert [(spec.name, spec.dtype) for spec in session.outputs] == [("y", "float32"), ("stem_relu", "float32")]
    assert net.sqnr_db(model) > 25


def test_a_tensor_that_both_kinds_read_is_dequantized_once(net: Workshop) -> None:
    model = net.build({"stem_relu": STATIC, "sum_relu": STATIC})  # first_relu reads stem_relu as floats
    assert sum(node.op_type == "DequantizeLinear" and node.output[0] == "stem_relu" for node in model.graph.node) == 1
    assert net.sqnr_db(model) > 30


def test_dynamic_int8_is_one_kernel_and_its_bias_is_inside(dense: Workshop) -> None:
    model = dense.build(dense.everywhere(Format.INT8_DYNAMIC))
    found = kernels(model)
    assert found["DynamicQuantizeMatMul"] == 2
    assert not found.keys() & {"MatMul", "Gemm", "Add"}
    assert dense.sqnr_db(model) > 30


def test_readers_of_one_tensor_share_its_dynamic_quantization() -> None:
    random = np.random.default_rng(0)
    values = {name: random.standard_normal((32, 32)).astype(np.float32) for name in ("q", "k")}
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_out"], name=name) for name in values]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 4, 32]}, outputs=["q_out", "k_out"], values=values))
    model = shop.build(shop.everywhere(Format.INT8_DYNAMIC))
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node) == 1
    divisors = np.linspace(0.5, 2, 32).astype(np.float32)
    shop.corrections = msgspec.structs.replace(shop.corrections, smooth=dict.fromkeys(("q_out", "k_out"), divisors))
    smooth = shop.build(shop.everywhere(Format.INT8_DYNAMIC), Style(smooth={"q_out": 0.5, "k_out": 0.5}))
    assert sum(node.op_type == "Mul" for node in smooth.graph.node) == 1
    assert shop.sqnr_db(smooth) > 30


def test_a_gemm_with_relu_keeps_the_relu_where_its_kernel_gives_floats() -> None:
    random = np.random.default_rng(0)
    values = {"w": random.standard_normal((64, 32)).astype(np.float32), "b": random.standard_normal(32).astype("f4")}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], name="g"),
        helper.make_node("Relu", ["g"], ["y"], name="y"),
    ]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 64]}, outputs=["y"], values=values))
    for form in (STATIC, Format.INT16_STATIC, Format.INT8_DYNAMIC, Format.INT8_WEIGHT, Format.INT4_WEIGHT, Format.FP16):
        model = shop.build({"y": form})
        assert min(float(each.min()) for each in shop.outputs(model)) == 0.0
        assert shop.sqnr_db(model) > (15 if form is Format.INT4_WEIGHT else 30)


@pytest.mark.parametrize(("form", "bits", "least"), [(Format.INT8_WEIGHT, 8, 35.0), (Format.INT4_WEIGHT, 4, 15.0)])
def test_weight_only_writes_matmulnbits_at_accuracy_level_4(
    dense: Workshop, form: Format, bits: int, least: float
) -> None:
    model = dense.build(dense.everywhere(form))
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(nodes) == 2
    for node in nodes:
        facts = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        assert (facts["bits"], facts["accuracy_level"]) == (bits, 4)
    assert kernels(model)["MatMulNBits"] == 2
    assert dense.sqnr_db(model) > least
    assert model.ByteSize() < dense.model.ByteSize() * bits / 32 * 1.5


@pytest.mark.parametrize("bits", [8, 4])
def test_weight_only_is_within_a_step_of_each_block_and_half_of_that_on_average(bits: int) -> None:
    random = np.random.default_rng(3)
    weight = random.uniform(-1, 1, (64, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="y")]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 64]}, outputs=["y"], values={"w": weight}))
    form = Format.INT8_WEIGHT if bits == 8 else Format.INT4_WEIGHT
    session, step = loaded(shop.build({"y": form})), 2 / (2**bits - 2)
    # A unit vector at full scale is exact in the kernel's own int8: what remains is the weight's rounding,
    # and the clipping of each block's largest values where that makes the squared error smaller.
    got = np.concatenate([session.run({"x": row[None]})[0] for row in np.eye(64, dtype=np.float32)])
    assert np.abs(got - weight).max() <= step
    assert np.sqrt(((got - weight) ** 2).mean()) <= step / np.sqrt(12) * 1.05


def test_an_lstm_becomes_dynamic() -> None:
    shop = Workshop(recurrent())
    model = shop.build(shop.everywhere(Format.INT8_DYNAMIC))
    assert kernels(model)["DynamicQuantizeLSTM"] == 1
    assert shop.sqnr_db(model) > 25


def test_fp16_halves_storage_and_nothing_else(net: Workshop, dense: Workshop) -> None:
    for shop in (net, dense):
        model = shop.build(shop.everywhere(Format.FP16))
        assert shop.sqnr_db(model) > 60
        assert model.ByteSize() < shop.model.ByteSize() * 0.75


def test_a_format_that_a_kind_has_no_kernel_for_is_refused(net: Workshop) -> None:
    for region, form in (("stem_relu", Format.INT4_WEIGHT), ("sum_relu", Format.INT8_DYNAMIC)):
        with pytest.raises(ModelError, match=f"no {form} kernel"):
            net.build({region: form})


def test_the_same_recipe_gives_the_same_bytes() -> None:
    made = []
    for _ in range(2):
        shop = Workshop(residual())
        made.append(shop.build(shop.everywhere(STATIC)).SerializeToString(deterministic=True))
    assert made[0] == made[1]


def test_an_empty_recipe_is_the_model_itself(net: Workshop) -> None:
    model = net.lowered(Recipe(name="fp32", regions=()))
    for one, two in zip(net.outputs(net.model), net.outputs(model), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_large_bias_on_tiny_weights_does_not_overflow_int32() -> None:
    values = {"w": np.full((4, 3, 1, 1), 1e-7, np.float32), "b": np.array([100, -100, 50, 0], np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="y")]
    shop = Workshop(model_of(nodes, inputs={"x": [1, 3, 4, 4]}, outputs=["y"], values=values))
    model = shop.build({"y": STATIC})
    stored = constants(model)["y/bias_q"].astype(np.int64)
    assert np.abs(stored).max() < 2**30
    assert shop.sqnr_db(model) > 40


def test_mixed_formats_live_in_one_model() -> None:
    net = Workshop(residual())
    recipe = net.recipe({"stem_relu": STATIC, "first_relu": STATIC, "depth_act": STATIC, "y": Format.INT8_DYNAMIC})
    model = net.lowered(recipe)
    assert kernels(model)["QLinearConv"] == 3
    assert net.sqnr_db(model) > 25


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.data())
def test_any_subset_of_static_regions_loads_and_stays_close(seed: int, length: int, data: st.DataObject) -> None:
    shop = Workshop(conv_chain(seed, length), samples=3)
    static = [each.name for each in shop.regions if STATIC in each.formats]
    chosen = data.draw(st.lists(st.sampled_from(static), unique=True, min_size=1))
    model = shop.build(dict.fromkeys(chosen, STATIC))
    assert sqnr_db(shop.outputs(shop.model), shop.outputs(model)) > 12


def test_regions_unknown_to_the_graph_change_nothing(net: Workshop) -> None:
    recipe = Recipe(name="odd", regions=(RegionRecipe(region="nowhere", format=STATIC),))
    assert len(net.lowered(recipe).graph.node) == len(net.model.graph.node)


def test_a_float_silu_behind_an_integer_convolution_is_one_kernel() -> None:
    net = Workshop(gated())
    found = kernels(net.build(dict.fromkeys(("a", "b"), STATIC)))
    assert found["QuickGelu"] == 2
    assert found["DequantizeLinear"] == 2
    assert not found.keys() & {"Sigmoid", "Mul"}
    assert net.sqnr_db(net.build(dict.fromkeys(("a", "b"), STATIC))) > 25


def test_a_silu_stays_two_nodes_where_its_half_is_read_elsewhere_or_is_in_integers() -> None:
    read = Workshop(gated(outputs=("y", "b_sigmoid")))
    assert kernels(read.build(dict.fromkeys(("a", "b"), STATIC)))["QuickGelu"] == 1
    net = Workshop(gated())
    half = net.build(dict.fromkeys(("b", "b_sigmoid"), STATIC))
    assert "QuickGelu" not in {node.op_type for node in half.graph.node}
    assert net.sqnr_db(half) > 25


def test_a_silu_in_float_all_the_way_is_left_to_the_runtime() -> None:
    net = Workshop(gated())
    model = net.build({"b": STATIC})
    assert [node.op_type for node in model.graph.node].count("QuickGelu") == 1
    assert kernels(model)["QuickGelu"] == 2
