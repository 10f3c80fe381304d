"""Read a quantized graph, whoever wrote it: which tensors are integers on which grid, and what they stand for.

Known are QuantizeLinear / DequantizeLinear pairs and ONNX Runtime's operators on integers. A tensor is tied to
the one it stands for by name: quantizers write their tensors beside the original's name.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from edgewise.forge.graph import Array, Graph, attribute
from edgewise.numerics.grid import Grid

# Positions of (scale, zero point) of the output, by operator.
_OUTPUT = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearSigmoid": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QLinearReduceMean": (3, 4),
    "QLinearConcat": (0, 1),
}
# Positions of (tensor, scale, zero point) of activation inputs, by operator.
_INPUTS = {
    "DequantizeLinear": ((0, 1, 2),),
    "QLinearConv": ((0, 1, 2),),
    "QLinearMatMul": ((0, 1, 2), (3, 4, 5)),
    "QLinearAdd": ((0, 1, 2), (3, 4, 5)),
    "QLinearMul": ((0, 1, 2), (3, 4, 5)),
    "QGemm": ((0, 1, 2),),
    "QLinearSigmoid": ((0, 1, 2),),
    "QLinearLeakyRelu": ((0, 1, 2),),
    "QLinearGlobalAveragePool": ((0, 1, 2),),
    "QLinearAveragePool": ((0, 1, 2),),
    "QLinearSoftmax": ((0, 1, 2),),
    "QLinearReduceMean": ((0, 1, 2),),
    "MatMulIntegerToFloat": ((0, 2, 4),),
}
# Through these a tensor keeps its meaning.
_SAME = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity"})
_MOVES = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Cast"})
# What quantizers append to the name of the tensor they write beside.
_SUFFIXES = (
    "_QuantizeLinear_Output",
    "_DequantizeLinear_Output",
    "_QuantizeLinear_Input",
    "_QuantizeInput",
    "_DequantizeOutput",
    "_quantized",
    "_dequantized",
    "/quantized",
    "/raw",
    "/dq",
    "/q",
)


def stem(name: str) -> str:
    """Return the name of the tensor that `name` was made from.

    >>> stem("conv1_QuantizeLinear_Output"), stem("conv1/raw"), stem("conv1")
    ('conv1', 'conv1', 'conv1')
    """
    while True:
        found = next((each for each in _SUFFIXES if name.endswith(each) and len(name) > len(each)), None)
        if found is None:
            return name
        name = name.removesuffix(found)


def is_constant(graph: Graph, name: str) -> bool:
    """Say whether a tensor depends on constants alone, through (de)quantization and moves."""
    if name in graph.constants:
        return True
    at = graph.producers.get(name)
    if at is None:
        return False
    node = graph.nodes[at]
    return node.op_type in _SAME | _MOVES and all(not each or is_constant(graph, each) for each in node.input)


class Read(Exception):  # noqa: N818 - not an error of the user's
    """A grid that cannot be read from the file."""


def grid_at(graph: Graph, node: onnx.NodeProto, scale: int, zero_point: int) -> Grid | None:
    """Return the grid whose scale and zero point stand at these inputs, or None where they are not constants."""
    if len(node.input) <= scale or node.input[scale] not in graph.constants:
        return None
    scales = graph.constants[node.input[scale]].astype(np.float32)
    zeros: Array = np.zeros(scales.shape, np.uint8)
    if len(node.input) > zero_point and node.input[zero_point]:
        if node.input[zero_point] not in graph.constants:
            return None
        zeros = graph.constants[node.input[zero_point]]
    if zeros.dtype.kind not in "iu" or attribute(node, "block_size", 0):
        return None
    if scales.size == 1:
        return Grid(scale=scales.reshape(()), zero_point=zeros.reshape(()))
    return Grid(scale=scales, zero_point=zeros, axis=int(attribute(node, "axis", 1)))


def written_grids(graph: Graph) -> dict[str, Grid]:
    """Return the grids of all integer activations as their writers have them, in graph order."""
    found = {}
    for node in graph.nodes:
        at = _OUTPUT.get(node.op_type)
        if at is None or is_constant(graph, node.output[0]):
            continue
        grid = grid_at(graph, node, *at)
        if grid is not None:
            found[node.output[0]] = grid
    return found


def read_grids(graph: Graph) -> Iterator[tuple[str, str, Grid]]:
    """Yield (tensor, reading node, grid) of every place where an integer activation is read."""
    for node in graph.nodes:
        for tensor, scale, zero_point in _INPUTS.get(node.op_type, ()):
            if len(node.input) > tensor and not is_constant(graph, node.input[tensor]):
                grid = grid_at(graph, node, scale, zero_point)
                if grid is not None:
                    yield node.input[tensor], node.name or node.output[0], grid


def same_grid(one: Grid, other: Grid) -> bool:
    """Say whether two grids mean the same."""
    return np.array_equal(one.scale, other.scale) and np.array_equal(
        one.zero_point.astype(np.int64), other.zero_point.astype(np.int64)
    )


def meanings(graph: Graph) -> dict[str, str]:
    """Map every activation to one name for all that mean the same: a tensor, its integers and what is read of them."""
    root: dict[str, str] = {}
    for node in graph.nodes:
        same = node.op_type in _SAME and not is_constant(graph, node.input[0])
        for name in node.output:
            root[name] = root.get(node.input[0], node.input[0]) if same else name
    return root
