"""One set of laws for every runtime, on the same int8 variant."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.contracts.recipe import Format
from edgewise.contracts.target import RuntimeName
from edgewise.errors import ExecutionError
from edgewise.runtimes import available, runtime
from edgewise.runtimes.base import Runtime
from tests.unit.forge.nets import Array, Workshop, residual, sqnr_db

STATIC = Format.INT8_STATIC


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(residual())


@pytest.fixture(scope="module")
def variant(shop: Workshop) -> bytes:
    """Convolutions, Add and pool in static int8; the Gemm stays in floats, as it is one of ONNX Runtime's own."""
    placement = {name: form for name, form in shop.everywhere(STATIC).items() if name != "y"}
    return bytes(shop.build(placement).SerializeToString(deterministic=True))


@pytest.mark.parametrize("name", list(RuntimeName))
class TestRuntime:
    """What a variant may rely on wherever it runs."""

    @pytest.fixture
    def runtime(self, name: RuntimeName) -> Runtime:
        if name not in available():
            pytest.skip(f"{name} is not installed")
        return runtime(name)

    def outputs(self, runtime: Runtime, shop: Workshop, model: bytes) -> list[Array]:
        session = runtime.load(model)
        return [session.run(shop.data[at].feeds)[0] for at in range(len(shop.data))]

    def test_it_states_the_same_signature(self, runtime: Runtime, variant: bytes) -> None:
        session = runtime.load(variant)
        assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("x", "float32", (1, 3, 16, 16))]
        assert [(spec.name, spec.dtype) for spec in session.outputs] == [("y", "float32")]

    def test_the_variant_is_close_to_fp32(self, runtime: Runtime, shop: Workshop, variant: bytes) -> None:
        assert sqnr_db(shop.outputs(shop.model), self.outputs(runtime, shop, variant)) > 25

    def test_fp32_is_fp32(self, runtime: Runtime, shop: Workshop) -> None:
        got = self.outputs(runtime, shop, bytes(shop.model.SerializeToString()))
        assert sqnr_db(shop.outputs(shop.model), got) > 90

    def test_the_same_input_gives_the_same_output(self, runtime: Runtime, shop: Workshop, variant: bytes) -> None:
        for one, two in zip(self.outputs(runtime, shop, variant), self.outputs(runtime, shop, variant), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_the_convolutions_run_on_integers(self, runtime: Runtime, shop: Workshop, variant: bytes) -> None:
        kernels = runtime.profile(variant, (shop.data[0].feeds,), rounds=3)
        quantized = {origin for kernel in kernels if kernel.runs_quantized for origin in kernel.origins}
        for conv in ("stem_relu", "first_relu", "second", "depth_act"):
            assert any(origin.removesuffix("/raw") == conv for origin in quantized), (conv, sorted(quantized))

    def test_what_is_no_model_is_refused(self, runtime: Runtime) -> None:
        with pytest.raises(ExecutionError):
            runtime.load(b"no model")
