"""Grids against ONNX Runtime's own QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgewise.errors import DataError
from edgewise.numerics.grid import Grid, activation_grid, dequantize, fake_quantize, quantize, weight_grid


def _by_onnxruntime(x: NDArray[np.float32], grid: Grid) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return what QuantizeLinear and DequantizeLinear make of `x`."""
    axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
    kind = helper.np_dtype_to_tensor_dtype(grid.dtype)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **axis),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [
            helper.make_tensor_value_info("q", kind, x.shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape),
        ],
        [numpy_helper.from_array(grid.scale, "s"), numpy_helper.from_array(grid.zero_point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    q, y = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    return q, y


@pytest.mark.parametrize(
    ("bits", "signed", "symmetric"),
    [(8, False, False), (8, True, False), (8, True, True), (8, False, True), (16, False, False), (16, True, True)],
)
def test_activations_agree_with_onnxruntime_bit_for_bit(bits: int, signed: bool, symmetric: bool) -> None:  # noqa: FBT001
    grid = activation_grid(-1.3, 4.7, bits=bits, signed=signed, symmetric=symmetric)
    # Ties too: halves of a step, and values far outside.
    ties = (np.arange(-300, 600) / 2 * float(grid.scale)).astype(np.float32)
    x = np.concatenate((ties, np.random.default_rng(0).normal(0, 4, 5000), [1e30, -1e30, 0.0])).astype(np.float32)
    q, y = _by_onnxruntime(x, grid)
    np.testing.assert_array_equal(quantize(x, grid), q)
    np.testing.assert_array_equal(dequantize(q, grid), y)
    np.testing.assert_array_equal(fake_quantize(x, grid), y)
    assert quantize(x, grid).dtype == q.dtype


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_channels_agree_with_onnxruntime(axis: int) -> None:
    w = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    others = tuple(a for a in range(3) if a != axis % 3)
    grid = weight_grid(np.abs(w).max(axis=others) * np.float32(0.8), axis=axis)
    q, y = _by_onnxruntime(w, grid)
    # Narrow: where ONNX saturates at -128 the grid stops at -127.
    np.testing.assert_array_equal(quantize(w, grid), np.maximum(q, -127))
    np.testing.assert_array_equal(dequantize(q, grid), y)


def test_half_a_step_rounds_to_even() -> None:
    grid = Grid(scale=np.array(1, np.float32), zero_point=np.array(0, np.int8))
    assert quantize([0.5, 1.5, 2.5, -0.5, -1.5], grid).tolist() == [0, 2, 2, 0, -2]
    odd = Grid(scale=np.array(1, np.float32), zero_point=np.array(1, np.int8))
    assert quantize([0.5, 1.5], odd).tolist() == [1, 3]  # rounded before the zero point is added


def test_limits_of_types() -> None:
    ranges = {np.uint8: (0, 255), np.int8: (-128, 127), np.uint16: (0, 65535), np.int16: (-32768, 32767)}
    for dtype, limits in ranges.items():
        grid = Grid(scale=np.array(1, np.float32), zero_point=np.array(0, dtype))
        assert (grid.qmin, grid.qmax) == limits
    narrow = weight_grid(np.ones(2), axis=0)
    assert (narrow.qmin, narrow.qmax, narrow.dtype) == (-127, 127, np.dtype(np.int8))
    four = weight_grid(1.0, axis=None, bits=4)
    assert (four.qmin, four.qmax, four.dtype, four.scale.shape) == (-7, 7, np.dtype(np.int8), ())


def test_scalars_stay_scalars() -> None:
    # A scale of shape [1] instead of () keeps onnxruntime from fusing QLinearAdd.
    grid = activation_grid(0.0, 1.0)
    assert grid.scale.shape == grid.zero_point.shape == ()
    assert grid.scale.dtype == np.float32
    assert quantize(np.float32(0.5), grid).shape == ()


def test_biases_keep_their_32_bits() -> None:
    grid = Grid(scale=np.array(2.0**-10, np.float32), zero_point=np.array(0, np.int32))
    # 2^24 + 1 has no float32; 2^40 saturates.
    assert quantize(np.array([(2**24 + 1) / 2**10, 2.0**40, -(2.0**40)]), grid).tolist() == [
        2**24 + 1,
        2**31 - 1,
        -(2**31),
    ]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1e-42, 1e-42), (-0.0, 0.0)])
def test_range_without_width_has_scale_one(low: float, high: float) -> None:
    grid = activation_grid(low, high)
    assert float(grid.scale) == 1.0
    assert fake_quantize(np.zeros(3, np.float32), grid).tolist() == [0, 0, 0]


def test_one_sided_ranges_are_widened_to_zero() -> None:
    assert int(activation_grid(2.0, 5.0).zero_point) == 0
    assert int(activation_grid(-5.0, -2.0).zero_point) == 255
    assert float(activation_grid(2.0, 5.0).high) == pytest.approx(5.0)


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_bad_ranges_are_refused(low: float, high: float) -> None:
    with pytest.raises(DataError):
        activation_grid(low, high)


def test_bad_weights_and_widths_are_refused() -> None:
    with pytest.raises(DataError):
        weight_grid(np.array([1.0, np.nan]), axis=0)
    with pytest.raises(ValueError, match="33 bits"):
        activation_grid(0.0, 1.0, bits=33)


def test_channel_of_zeros_takes_the_scale_of_the_coarsest_other() -> None:
    grid = weight_grid(np.array([0.0, 1.27, 2.54, 1e-44]), axis=0)
    np.testing.assert_allclose(grid.scale, [0.02, 0.01, 0.02, 0.02], rtol=1e-6)
    assert weight_grid(np.zeros(2), axis=0).scale.tolist() == [1.0, 1.0]
