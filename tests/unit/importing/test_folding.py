from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.unit.importing.models import Array, floats, model_of, node
from tests.unit.importing.runs import Inputs, kinds, normalised


def statistics(channels: int) -> dict[str, Array]:
    """Return what a batch norm of so many channels has learnt."""
    return {
        "gain": 1 + floats(channels, seed=1),
        "offset": floats(channels, seed=2),
        "mean": floats(channels, seed=3),
        "variance": np.abs(floats(channels, seed=4)) + 0.1,
    }


NORM = node("BatchNormalization", ["c", "gain", "offset", "mean", "variance"], ["y"], epsilon=1e-3)
SCALED = [node("Mul", ["c", "gain"], ["s"]), node("Add", ["s", "offset"], ["y"])]


def scaling(channels: int, *tail: int) -> dict[str, Array]:
    return {name: statistics(channels)[name].reshape(channels, *tail) for name in ("gain", "offset")}


IMAGE: Inputs = {"x": ["n", 3, 8, 8]}
ROW: Inputs = {"x": ["n", 6]}
KERNEL = floats(4, 3, 3, 3)
TRANSPOSED = floats(6, 2, 2, 2)
FOLDED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], dict[str, Array], dict[str, int]]] = {
    "conv, norm": (
        [node("Conv", ["x", "w", "b"], ["c"]), NORM],
        IMAGE, {"w": KERNEL, "b": floats(4), **statistics(4)}, {"Conv": 1},
    ),
    "conv without bias, norm": (
        [node("Conv", ["x", "w"], ["c"]), NORM], IMAGE, {"w": KERNEL, **statistics(4)}, {"Conv": 1},
    ),
    "conv, mul, add": (
        [node("Conv", ["x", "w"], ["c"]), *SCALED], IMAGE, {"w": KERNEL, **scaling(4, 1, 1)}, {"Conv": 1},
    ),
    "conv, sub, div": (
        [node("Conv", ["x", "w"], ["c"]), node("Sub", ["c", "offset"], ["s"]), node("Div", ["s", "gain"], ["y"])],
        IMAGE, {"w": KERNEL, **scaling(4, 1, 1)}, {"Conv": 1},
    ),
    "conv, constant minus": (
        [node("Conv", ["x", "w"], ["c"]), node("Sub", ["offset", "c"], ["y"])],
        IMAGE, {"w": KERNEL, **scaling(4, 1, 1)}, {"Conv": 1},
    ),
    "conv, constant divided: stays": (
        [node("Conv", ["x", "w"], ["c"]), node("Div", ["gain", "c"], ["y"])],
        IMAGE, {"w": KERNEL, **scaling(4, 1, 1)}, {"Conv": 1, "Div": 1},
    ),
    "transposed conv, norm": (
        [node("ConvTranspose", ["x", "w"], ["c"], group=3, strides=[2, 2]), NORM],
        {"x": ["n", 6, 5, 5]}, {"w": TRANSPOSED, **statistics(6)}, {"ConvTranspose": 1},
    ),
    "transposed conv, mul, add": (
        [node("ConvTranspose", ["x", "w", "b"], ["c"], group=3), *SCALED],
        {"x": ["n", 6, 5, 5]}, {"w": TRANSPOSED, "b": floats(6), **scaling(6, 1, 1)}, {"ConvTranspose": 1},
    ),
    "gemm, norm": (
        [node("Gemm", ["x", "w", "b"], ["c"], transB=1), NORM],
        ROW, {"w": floats(5, 6), "b": floats(5), **statistics(5)}, {"Gemm": 1},
    ),
    "product, norm": (
        [node("MatMul", ["x", "w"], ["c"]), NORM], ROW, {"w": floats(6, 5), **statistics(5)}, {"Gemm": 1},
    ),
    "product, mul, add": (
        [node("MatMul", ["x", "w"], ["c"]), *SCALED], ROW, {"w": floats(6, 5), **scaling(5)}, {"Gemm": 1},
    ),
    "product of three axes, norm on the second: stays": (
        [node("MatMul", ["x", "w"], ["c"]), NORM],
        {"x": ["n", 4, 6]}, {"w": floats(6, 5), **statistics(4)}, {"MatMul": 1, "BatchNormalization": 1},
    ),
    "product of three axes, mul, add: the bias stays": (
        [node("MatMul", ["x", "w"], ["c"]), *SCALED],
        {"x": ["n", 4, 6]}, {"w": floats(6, 5), **scaling(5)}, {"MatMul": 1, "Add": 1},
    ),
    "scale over the last axis of a conv: stays": (
        [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "gain"], ["y"])],
        IMAGE, {"w": KERNEL, "gain": floats(6)}, {"Conv": 1, "Mul": 1},
    ),
    "read by two: stays": (
        [node("ConvTranspose", ["x", "w"], ["c"]), node("Mul", ["c", "gain"], ["s"]), node("Add", ["s", "c"], ["y"])],
        {"x": ["n", 6, 5, 5]}, {"w": TRANSPOSED, "gain": floats(2, 1, 1)}, {"ConvTranspose": 1, "Mul": 1, "Add": 1},
    ),
    "norm before the conv: stays": (
        [
            node("BatchNormalization", ["x", "gain", "offset", "mean", "variance"], ["n"]),
            node("Relu", ["n"], ["r"]), node("Conv", ["r", "w"], ["y"]),
        ],
        IMAGE, {"w": KERNEL, **statistics(3)}, {"BatchNormalization": 1, "Relu": 1, "Conv": 1},
    ),
    "pad, conv": (
        [node("Pad", ["x", "p"], ["padded"]), node("Conv", ["padded", "w"], ["y"], pads=[1, 0, 0, 1])],
        IMAGE, {"w": KERNEL, "p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}, {"Conv": 1},
    ),
    "negative pad, conv: stays": (
        [node("Pad", ["x", "p"], ["padded"]), node("Conv", ["padded", "w"], ["y"])],
        IMAGE, {"w": KERNEL, "p": np.array([0, 0, -1, 2, 0, 0, 1, 0])}, {"Pad": 1, "Conv": 1},
    ),
    "pad with ones, conv: stays": (
        [node("Pad", ["x", "p", "v"], ["padded"]), node("Conv", ["padded", "w"], ["y"])],
        IMAGE, {"w": KERNEL, "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.array(1, np.float32)},
        {"Pad": 1, "Conv": 1},
    ),
    "pad of channels, conv: stays": (
        [node("Pad", ["x", "p"], ["padded"]), node("Conv", ["padded", "w"], ["y"])],
        {"x": ["n", 2, 8, 8]}, {"w": KERNEL, "p": np.array([0, 1, 0, 0, 0, 0, 0, 0])}, {"Pad": 1, "Conv": 1},
    ),
    "mean": ([node("ReduceMean", ["x"], ["y"], axes=[2, 3])], IMAGE, {}, {"GlobalAveragePool": 1}),
    "mean, flat, from the end": (
        [node("ReduceMean", ["x"], ["y"], axes=[-1, -2], keepdims=0)],
        IMAGE, {}, {"GlobalAveragePool": 1, "Flatten": 1},
    ),
    "mean of rows: stays": ([node("ReduceMean", ["x"], ["y"], axes=[3])], IMAGE, {}, {"ReduceMean": 1}),
    "pool over all": ([node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8])], IMAGE, {}, {"GlobalAveragePool": 1}),
    "padded pool: stays": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8], auto_pad="SAME_UPPER")], IMAGE, {}, {"AveragePool": 1},
    ),
    "clip from above 0": (
        [node("Conv", ["x", "w"], ["c"]), node("Clip", ["c", "low", "high"], ["y"])],
        IMAGE, {"w": KERNEL, "low": np.array(0.2, np.float32), "high": np.array(1, np.float32)}, {"Conv": 1, "Clip": 1},
    ),
    "dropout and identities": (
        [node("Dropout", ["x"], ["d"]), node("Identity", ["d"], ["i"]), node("Relu", ["i"], ["y"])],
        IMAGE, {}, {"Relu": 1},
    ),
    "channels last": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["c"]),
            node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
        ],
        {"x": ["n", 8, 8, 3]}, {"w": KERNEL}, {"Conv": 1, "Transpose": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded_and_what_stays(tmp_path: Path, name: str) -> None:
    nodes, inputs, values, left = FOLDED[name]
    done, _ = normalised(tmp_path, model_of(nodes, inputs=inputs, values=values))
    assert kinds(done) == left
