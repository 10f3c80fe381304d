from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.errors import ExecutionError
from edgewise.runtimes.onnxruntime_ import Level, OnnxRuntime, optimised, reason, session_options
from edgewise.runtimes.onnxruntime_profile import runs_quantized
from tests.unit.runtimes.models import branching, conv_relu_add, model_of, quantized_conv, serialised

X = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


def kinds(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


def test_sessions_do_not_spin_and_keep_to_their_threads() -> None:
    options = session_options(threads=2)
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_optimised_fuses_a_batch_norm_into_its_convolution() -> None:
    norm = {name: np.full(4, value, np.float32) for name, value in zip("sbmv", (2, 1, 0.5, 4), strict=True)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        onnx.helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"], name="y"),
    ]
    values = {"w": np.ones((4, 3, 1, 1), np.float32), **norm}
    model = serialised(model_of(nodes, inputs={"x": [1, 3, 16, 16]}, outputs=["y"], values=values))
    assert kinds(optimised(model)) == ["Conv"]
    np.testing.assert_allclose(
        OnnxRuntime().load(optimised(model)).run({"x": X})[0],
        OnnxRuntime().load(model, optimise=False).run({"x": X})[0],
        rtol=1e-5,
    )


def test_optimised_leaves_out_what_it_is_told_to() -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        onnx.helper.make_node("Add", ["m", "b"], ["y"], name="y"),
    ]
    values = {"w": np.ones((4, 2), np.float32), "b": np.ones(2, np.float32)}
    model = serialised(model_of(nodes, inputs={"x": [3, 4]}, outputs=["y"], values=values))
    assert kinds(optimised(model)) == ["Gemm"]
    assert kinds(optimised(model, without=["MatMulAddFusion"])) == ["MatMul", "Add"]


def test_optimised_stays_within_standard_operators_unless_asked() -> None:
    model = serialised(conv_relu_add())
    assert {node.domain for node in onnx.load_from_string(optimised(model)).graph.node} == {""}
    assert "FusedConv" in kinds(optimised(model, level=Level.EXTENDED))


def test_optimised_embeds_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(conv_relu_add(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = optimised(path)
    (y,) = OnnxRuntime().load(data).run({"x": X})
    np.testing.assert_allclose(y, OnnxRuntime().load(path).run({"x": X})[0], rtol=1e-5, atol=1e-6)


def test_a_profile_names_inputs_and_outputs_of_every_kernel() -> None:
    kernels = OnnxRuntime().profile(serialised(quantized_conv()), ({"x": np.zeros((1, 16, 12, 12), np.float32)},))
    assert all(each.inputs and each.outputs for each in kernels)
    assert [each.kind for each in kernels if each.kind.startswith("Q")] == ["QuantizeLinear", "QLinearConv"]
    written = {name for each in kernels for name in each.outputs}
    assert "y" in written
    # What a kernel reads was written by one before it, or is given.
    seen = {"x"}
    for each in kernels:
        assert seen.intersection(each.inputs)
        seen.update(each.outputs)


def test_a_profile_covers_unnamed_nodes() -> None:
    nodes = [
        onnx.helper.make_node("Neg", ["x"], ["a"]),
        onnx.helper.make_node("Exp", ["a"], ["b"]),
        onnx.helper.make_node("Exp", ["b"], ["c"]),
        onnx.helper.make_node("Neg", ["c"], ["y"]),
    ]
    model = serialised(model_of(nodes, inputs={"x": [8]}, outputs=["y"]))
    kernels = OnnxRuntime().profile(model, ({"x": np.zeros(8, np.float32)},), rounds=2)
    assert [(each.kind, *each.outputs) for each in kernels] == [("Neg", "a"), ("Exp", "b"), ("Exp", "c"), ("Neg", "y")]


def test_a_profile_covers_the_branch_that_ran() -> None:
    kernels = OnnxRuntime().profile(serialised(branching()), ({"x": np.ones(4, np.float32)},), rounds=2)
    assert {"Neg", "If"} <= {each.kind for each in kernels}
    assert "Abs" not in {each.kind for each in kernels}


def test_a_profile_takes_every_feed() -> None:
    feeds = ({"x": np.ones(4, np.float32)}, {"x": -np.ones(4, np.float32)})
    kernels = OnnxRuntime().profile(serialised(branching()), feeds, rounds=1)
    assert {"Neg", "Abs"} <= {each.kind for each in kernels}


def test_external_weights_of_the_optimised_graph_do_not_hinder_a_profile() -> None:
    weights = np.ones((1024, 600), np.float32)  # above the size from which weights are kept apart
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="y")
    model = serialised(model_of([node], inputs={"x": [1, 1024]}, outputs=["y"], values={"w": weights}))
    (kernel,) = OnnxRuntime().profile(model, ({"x": np.ones((1, 1024), np.float32)},), rounds=2)
    assert kernel.outputs == ("y",)


@pytest.mark.parametrize(
    "kind",
    ["QLinearConv", "QLinearAdd", "QGemm", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "DynamicQuantizeLSTM"],
)
def test_integer_operators_are_known(kind: str) -> None:
    assert runs_quantized(kind)


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Conv", "QuickGelu"])
def test_float_operators_and_borders_are_not_integer(kind: str) -> None:
    assert not runs_quantized(kind)


def test_the_reason_drops_codes_and_source_places() -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/graph/graph.cc:123 void onnxruntime::F(int) "
        "This is an invalid model.\nNode y has no operator."
    )
    assert reason(error) == "This is an invalid model. Node y has no operator."
    assert len(reason(RuntimeError("x" * 5000))) == 300


def test_a_session_that_fails_while_running_says_so() -> None:
    node = onnx.helper.make_node("Gather", ["w", "i"], ["y"], name="gather")
    cast = onnx.helper.make_node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64)
    model = model_of([cast, node], inputs={"x": [1]}, outputs=["y"], values={"w": np.ones(3, np.float32)})
    with pytest.raises(ExecutionError, match=r"could not run the model.*gather"):
        OnnxRuntime().load(serialised(model)).run({"x": np.array([7], np.float32)})
