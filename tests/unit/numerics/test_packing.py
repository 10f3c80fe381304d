"""Packed weights executed by ONNX Runtime's MatMulNBits."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgewise.numerics.packing import block_grid, pack_levels, pack_nbits, unpack_nbits
from edgewise.numerics.rounding import gptq, nearest

Packed = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8] | None]


def _by_onnxruntime(x: NDArray[np.float32], packed: Packed, *, n: int, bits: int, block: int) -> NDArray[np.float32]:
    constants = [
        numpy_helper.from_array(each, name) for each, name in zip(packed, "bsz", strict=True) if each is not None
    ]
    node = helper.make_node(
        "MatMulNBits",
        ["x", *(each.name for each in constants)],
        ["y"],
        domain="com.microsoft",
        K=x.shape[1],
        N=n,
        bits=bits,
        block_size=block,
        accuracy_level=0,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(x), n])],
        constants,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("k", [128, 96, 100])
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_onnxruntime_computes_with_the_unpacked_weight(k: int, block: int, bits: int, asymmetric: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(0)
    w, x = rng.normal(0.3, 1, (k, 12)).astype(np.float32), rng.normal(size=(5, k)).astype(np.float32)
    packed = pack_nbits(w, bits, block, asymmetric=asymmetric)
    values = unpack_nbits(*packed, k=k, bits=bits, block=block)
    blocks = -(-k // block)
    assert packed[0].shape == (12, blocks, block * bits // 8)
    assert packed[1].shape == (12 * blocks,)
    assert asymmetric is (packed[2] is not None)
    np.testing.assert_allclose(_by_onnxruntime(x, packed, n=12, bits=bits, block=block), x @ values, atol=2e-4)
    step = np.abs(packed[1]).max()
    assert np.abs(values - w).max() <= step * (0.51 if asymmetric else 1.01)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_levels_pack_too(bits: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 64)).astype(np.float32)
    x = rng.normal(size=(300, 64)).astype(np.float32)
    scale, zero_point = block_grid(rows, bits, 32, asymmetric=True)
    levels = gptq(rows, x.T @ x, scale, bits=bits, zero_point=zero_point, group=32)
    packed = pack_levels(levels, scale, zero_point, bits, 32)
    column = np.arange(64) // 32
    expected = (levels.astype(np.float32) - zero_point[:, column]) * scale[:, column]
    np.testing.assert_array_equal(unpack_nbits(*packed, k=64, bits=bits, block=32), expected.T)


def test_packing_rounds_to_nearest() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    scale, zero_point = block_grid(rows, 4, 32, asymmetric=True)
    levels = nearest(rows, scale, bits=4, zero_point=zero_point, group=32)
    np.testing.assert_array_equal(
        pack_levels(levels, scale, zero_point, 4, 32)[0], pack_nbits(rows.T, 4, 32, asymmetric=True)[0]
    )


def test_the_largest_magnitude_is_exact_when_symmetric() -> None:
    w = np.linspace(-0.5, 1.0, 32, dtype=np.float32)[:, None]
    packed = pack_nbits(w, 4, 32, asymmetric=False)
    assert packed[1].tolist() == [-0.125]
    assert unpack_nbits(*packed, k=32, bits=4, block=32)[-1, 0] == 1.0


def test_the_end_of_the_last_block_stands_for_zeros() -> None:
    w = np.random.default_rng(0).normal(-1, 1, (20, 3)).astype(np.float32)
    packed = pack_nbits(w, 4, 16, asymmetric=True)
    assert unpack_nbits(*packed, k=32, bits=4, block=16)[20:].tolist() == [[0, 0, 0]] * 12


def test_blocks_of_zeros_and_wrong_sizes() -> None:
    for asymmetric in (False, True):
        packed = pack_nbits(np.zeros((16, 2), np.float32), 4, 16, asymmetric=asymmetric)
        assert unpack_nbits(*packed, k=16, bits=4, block=16).tolist() == [[0, 0]] * 16
    for bits, block in ((3, 32), (4, 8), (4, 48)):
        with pytest.raises(ValueError, match="MatMulNBits"):
            pack_nbits(np.ones((48, 2), np.float32), bits, block, asymmetric=False)
