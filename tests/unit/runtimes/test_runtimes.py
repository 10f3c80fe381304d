"""Laws of every runtime: one class of tests run over all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.contracts.target import RuntimeName
from edgewise.errors import ExecutionError, MissingExtraError
from edgewise.runtimes import available, runtime
from edgewise.runtimes.base import Runtime, TensorSpec, require
from tests.unit.runtimes.models import Array, branching, conv_relu_add, model_of, quantized_conv, serialised


@pytest.fixture(params=list(RuntimeName), ids=str)
def executor(request: pytest.FixtureRequest) -> Runtime:
    name: RuntimeName = request.param
    if name not in available():
        pytest.skip(f"{name} is not installed")
    return runtime(name)


@pytest.fixture
def image() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)}


class TestEveryRuntime:
    def test_is_what_it_is_called(self, executor: Runtime) -> None:
        assert executor.name in set(RuntimeName)
        assert executor.version()[0].isdigit()

    def test_tells_inputs_and_outputs_with_dynamic_axes(self, executor: Runtime) -> None:
        session = executor.load(serialised(conv_relu_add(batch="n")))
        assert session.inputs == (TensorSpec("x", "float32", (None, 3, 16, 16)),)
        assert [each.name for each in session.outputs] == ["y"]

    def test_computes_what_the_graph_says(self, executor: Runtime) -> None:
        scale = onnx.helper.make_node("Mul", ["x", "two"], ["y"])
        model = model_of([scale], inputs={"x": [3]}, outputs=["y"], values={"two": np.array(2, np.float32)})
        (y,) = executor.load(serialised(model)).run({"x": np.array([1, -2, 3], np.float32)})
        assert y.tolist() == [2, -4, 6]

    def test_outputs_survive_the_next_run(self, executor: Runtime) -> None:
        neg = onnx.helper.make_node("Neg", ["x"], ["y"])
        session = executor.load(serialised(model_of([neg], inputs={"x": [2]}, outputs=["y"])))
        (first,) = session.run({"x": np.array([1, 2], np.float32)})
        session.run({"x": np.array([8, 9], np.float32)})
        assert first.tolist() == [-1, -2]

    def test_takes_batches_of_any_size_on_a_dynamic_axis(self, executor: Runtime) -> None:
        session = executor.load(serialised(conv_relu_add(batch="n")))
        for batch in (1, 3):
            (y,) = session.run({"x": np.zeros((batch, 3, 16, 16), np.float32)})
            assert y.shape == (batch, 32, 1, 1)

    def test_loads_external_data_beside_the_file(
        self, executor: Runtime, tmp_path: Path, image: dict[str, Array]
    ) -> None:
        model = conv_relu_add()
        inside = executor.load(serialised(model)).run(image)
        path = tmp_path / "model.onnx"
        onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (tmp_path / "weights.bin").exists()
        np.testing.assert_array_equal(executor.load(path).run(image)[0], inside[0])

    @pytest.mark.parametrize(
        "feeds",
        [
            {},
            {"x": np.zeros((1, 3, 16, 16), np.float32), "more": np.zeros(1, np.float32)},
            {"x": np.zeros((1, 3, 16, 16), np.float64)},
            {"x": np.zeros((1, 3, 16, 15), np.float32)},
            {"x": np.zeros((3, 16), np.float32)},
        ],
        ids=["missing", "unknown", "type", "shape", "rank"],
    )
    def test_refuses_wrong_feeds_in_one_short_message(self, executor: Runtime, feeds: dict[str, Array]) -> None:
        session = executor.load(serialised(conv_relu_add()))
        with pytest.raises(ExecutionError) as caught:
            session.run(feeds)
        assert len(str(caught.value)) < 500
        assert ".cpp" not in caught.value.found
        assert ".cc:" not in caught.value.found

    def test_names_the_inputs_that_are_missing_or_unknown(self, executor: Runtime, image: dict[str, Array]) -> None:
        session = executor.load(serialised(conv_relu_add()))
        with pytest.raises(ExecutionError, match="inputs missing: x"):
            session.run({})
        with pytest.raises(ExecutionError, match="unknown to the model: a, b"):
            session.run({**image, "b": image["x"], "a": image["x"]})

    def test_refuses_a_broken_model(self, executor: Runtime) -> None:
        with pytest.raises(ExecutionError, match="could not load the model"):
            executor.load(b"not an onnx model")

    def test_refuses_a_missing_file_by_its_name(self, executor: Runtime, tmp_path: Path) -> None:
        with pytest.raises(ExecutionError, match=r"nowhere\.onnx"):
            executor.load(tmp_path / "nowhere.onnx")

    def test_refuses_an_unknown_operator_by_its_name(self, executor: Runtime) -> None:
        node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"])
        with pytest.raises(ExecutionError, match="NoSuchOperator"):
            executor.load(serialised(model_of([node], inputs={"x": [1]}, outputs=["y"])))

    def test_profile_ties_float_kernels_to_the_tensors_they_compute(
        self, executor: Runtime, image: dict[str, Array]
    ) -> None:
        kernels = executor.profile(serialised(conv_relu_add()), (image,), rounds=3)
        origins = [name for kernel in kernels for name in kernel.origins]
        assert {"first_relu", "second", "y"} <= set(origins)
        assert all(kernel.time_us > 0 for kernel in kernels)
        assert not any(kernel.runs_quantized for kernel in kernels)

    def test_profile_tells_an_integer_kernel(self, executor: Runtime) -> None:
        x = np.random.default_rng(0).standard_normal((1, 16, 12, 12)).astype(np.float32)
        kernels = executor.profile(serialised(quantized_conv()), ({"x": x},), rounds=3)
        (integer,) = [kernel for kernel in kernels if kernel.runs_quantized]
        assert "conv" in integer.origins

    def test_profile_tells_each_kernel_once(self, executor: Runtime) -> None:
        norms = [
            onnx.helper.make_node("LayerNormalization", [source, "s"], [output], name=output)
            for source, output in (("x", "a"), ("a", "b"), ("b", "y"))
        ]
        model = model_of(norms, inputs={"x": [4, 8]}, outputs=["y"], values={"s": np.ones(8, np.float32)})
        kernels = executor.profile(serialised(model), ({"x": np.ones((4, 8), np.float32)},), rounds=6)
        assert sum(kernel.kind in {"LayerNormalization", "MVN"} for kernel in kernels) == 3

    def test_profile_of_a_file_is_that_of_its_bytes(
        self, executor: Runtime, tmp_path: Path, image: dict[str, Array]
    ) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(conv_relu_add(), str(path))
        of_file = executor.profile(path, (image,), rounds=2)
        of_bytes = executor.profile(path.read_bytes(), (image,), rounds=2)
        assert [each.kind for each in of_file] == [each.kind for each in of_bytes]
        assert [each.origins for each in of_file] == [each.origins for each in of_bytes]
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("model", [conv_relu_add(), quantized_conv(), branching()], ids=["float", "int8", "if"])
def test_runtimes_agree(model: onnx.ModelProto) -> None:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
    outputs = [runtime(name).load(serialised(model)).run(feeds)[0] for name in available()]
    for output in outputs[1:]:
        # The grid of quantized_conv has steps of 0.5: a value between two may go either way.
        step = 0.5 if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else 0.0
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=step + 1e-4)
        assert np.mean(output != outputs[0]) < 0.5 or step == 0


def test_a_missing_library_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'edgewise\[nothing\]'"):
        require("edgewise_no_such_library", extra="nothing")


def test_the_default_runtime_is_always_there() -> None:
    assert available()[0] is RuntimeName.ONNXRUNTIME
