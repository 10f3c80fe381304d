"""Cut a graph into regions: the smallest parts that a runtime quantizes as one kernel.

Every node belongs to exactly one region. A convolution takes the Relu or Clip behind it; a MatMul
takes the Add of its bias. What has no integer kernel is a region of its own that stays in float.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
import numpy as np
import onnx

from edgewise.contracts.recipe import Format
from edgewise.forge.graph import Graph, attribute, captured, clip_bounds


class Kind(StrEnum):
    """What a region computes."""

    CONV = "conv"
    GEMM = "gemm"
    MATMUL = "matmul"
    """A MatMul with a constant right side, and its bias if there is one."""
    PRODUCT = "product"
    """A MatMul of two activations."""
    LSTM = "lstm"
    ELEMENTWISE = "elementwise"
    """Add and Mul of activations, Sigmoid, Softmax, pools: ops with an integer kernel, no weights."""
    PASS = "pass"  # noqa: S105 - passes values on
    """Moves values without computing: what comes out lies on the grid of what went in."""
    FLOAT = "float"


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """One region. It is named after the tensor it writes, which is stable and unique."""

    name: str
    kind: Kind
    op: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    """Activation inputs in the order of the anchor's inputs; those of a float region are read as floats."""
    output: str
    raw_output: str
    """What the anchor itself writes, before an absorbed Relu or Clip."""
    weight: str | None = None
    bias: str | None = None
    bounds: tuple[float, float] | None = None
    """Of the absorbed Relu or Clip."""

    @property
    def anchor(self) -> int:
        """Index of the node that computes."""
        return self.nodes[0]

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats this kind of region can be lowered to."""
        return _FORMATS[self.kind]


_FORMATS = {
    Kind.CONV: (Format.FP32, Format.INT8_STATIC, Format.INT16_STATIC, Format.FP16),
    Kind.GEMM: (
        Format.FP32,
        Format.INT8_STATIC,
        Format.INT16_STATIC,
        Format.INT8_DYNAMIC,
        Format.INT8_WEIGHT,
        Format.INT4_WEIGHT,
        Format.FP16,
    ),
    Kind.MATMUL: (
        Format.FP32,
        Format.INT8_STATIC,
        Format.INT16_STATIC,
        Format.INT8_DYNAMIC,
        Format.INT8_WEIGHT,
        Format.INT4_WEIGHT,
        Format.FP16,
    ),
    Kind.PRODUCT: (Format.FP32, Format.INT8_STATIC),
    Kind.LSTM: (Format.FP32, Format.INT8_DYNAMIC),
    Kind.ELEMENTWISE: (Format.FP32, Format.INT8_STATIC, Format.INT16_STATIC),
    Kind.PASS: (Format.FP32, Format.INT8_STATIC, Format.INT16_STATIC),
    Kind.FLOAT: (Format.FP32,),
}

_ELEMENTWISE = frozenset(
    {"Add", "Mul", "Sigmoid", "Softmax", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu"}
)
# MaxPool compares and Resize (nearest) copies: both run on the integers themselves.
_PASS = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Resize", "Slice", "SpaceToDepth"}
)


def regions_of(graph: Graph) -> tuple[Region, ...]:
    """Return the regions in topological order of their anchors."""
    taken: set[int] = set()
    found: list[Region] = []
    for index, node in enumerate(graph.nodes):
        if index in taken or node.op_type == "Constant":
            continue
        region = _region_at(graph, index, node)
        taken.update(region.nodes)
        found.append(region)
    return tuple(found)


def macs(graph: Graph, region: Region) -> int | None:
    """Return multiply-adds of one inference, or None where a shape is dynamic."""
    if region.weight is None or region.kind is Kind.LSTM:
        return 0
    shape = graph.shapes.get(region.raw_output)
    weight = graph.constants[region.weight].shape
    if shape is None or any(axis is None for axis in shape[1:]):
        return None
    cells = int(np.prod([axis for axis in shape[1:] if axis is not None], dtype=np.int64)) if shape[1:] else 1
    if region.kind is Kind.CONV:
        return cells * int(np.prod(weight[1:]))
    rows = weight[1] if region.kind is Kind.GEMM and attribute(graph.nodes[region.anchor], "transB", 0) else weight[0]
    return cells * int(rows)


def _region_at(  # noqa: PLR0911 - one return per kind reads best
    graph: Graph, index: int, node: onnx.NodeProto
) -> Region:
    constant = [name in graph.constants for name in node.input]
    if not _computes_float(graph, node):
        return _plain(graph, index, node, Kind.FLOAT)
    if node.op_type == "Conv" and constant[1] and (len(constant) < 3 or constant[2] or not node.input[2]):
        return _weighted(graph, index, node, Kind.CONV)
    if node.op_type == "Gemm" and _plain_gemm(graph, node):
        return _weighted(graph, index, node, Kind.GEMM)
    if node.op_type == "MatMul":
        if constant[1] and graph.constants[node.input[1]].ndim == 2:
            return _matmul(graph, index, node)
        if not any(constant):
            return _plain(graph, index, node, Kind.PRODUCT)
    if node.op_type == "LSTM" and constant[1] and constant[2] and not node.domain:
        return _plain(graph, index, node, Kind.LSTM)
    if node.op_type in _ELEMENTWISE and _has_integer_kernel(graph, node):
        plain = _plain(graph, index, node, Kind.ELEMENTWISE)
        return _bounded(graph, plain) if node.op_type == "Add" else plain
    if node.op_type in _PASS and _moves_only(node):
        return _plain(graph, index, node, Kind.PASS)
    return _plain(graph, index, node, Kind.FLOAT)


def _computes_float(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and len(node.input) > 0 and node.input[0] in graph.float_tensors


def _plain_gemm(graph: Graph, node: onnx.NodeProto) -> bool:
    return (
        node.input[1] in graph.constants
        and (len(node.input) < 3 or not node.input[2] or node.input[2] in graph.constants)
        and attribute(node, "alpha", 1.0) == 1.0
        and attribute(node, "beta", 1.0) == 1.0
        and not attribute(node, "transA", 0)
    )


def _has_integer_kernel(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether all inputs are float activations, or constants that broadcast (Add, Mul)."""
    if node.op_type in ("Add", "Mul"):
        return sum(name in graph.constants for name in node.input) == 0
    if node.op_type == "AveragePool":
        return not attribute(node, "ceil_mode", 0)
    if node.op_type == "Concat":
        return all(name in graph.float_tensors for name in node.input)
    return True


def _moves_only(node: onnx.NodeProto) -> bool:
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", b"nearest") == b"nearest")
    return len(node.output) == 1


def _plain(graph: Graph, index: int, node: onnx.NodeProto, kind: Kind) -> Region:
    inputs = [name for name in node.input if name and name not in graph.constants]
    if kind in (Kind.PASS, Kind.LSTM):
        inputs = inputs[:1]
    elif kind is Kind.FLOAT:
        inputs += [name for name in captured(node) if name not in graph.constants]
    output = next((name for name in node.output if name), node.name)
    return Region(
        name=output,
        kind=kind,
        op=node.op_type,
        nodes=(index,),
        inputs=tuple(dict.fromkeys(inputs)) if kind is Kind.FLOAT else tuple(inputs),
        output=output,
        raw_output=output,
    )


def _weighted(graph: Graph, index: int, node: onnx.NodeProto, kind: Kind) -> Region:
    region = Region(
        name=node.output[0],
        kind=kind,
        op=node.op_type,
        nodes=(index,),
        inputs=(node.input[0],),
        output=node.output[0],
        raw_output=node.output[0],
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 and node.input[2] else None,
    )
    return _bounded(graph, region)


def _bounded(graph: Graph, region: Region) -> Region:
    """Take the Relu or Clip behind a region into it, where saturation of its output's grid expresses it."""
    follower = graph.sole_consumer(region.output)
    bounds = clip_bounds(graph, graph.nodes[follower]) if follower is not None else None
    # A grid always holds 0, so only bounds around 0 can be expressed by saturation.
    if follower is None or bounds is None or not bounds[0] <= 0.0 <= bounds[1]:
        return region
    output = graph.nodes[follower].output[0]
    return msgspec.structs.replace(region, name=output, nodes=(*region.nodes, follower), output=output, bounds=bounds)


def _matmul(graph: Graph, index: int, node: onnx.NodeProto) -> Region:
    """Take the Add of a constant vector behind a MatMul as its bias."""
    output, bias, nodes = node.output[0], None, [index]
    follower = graph.sole_consumer(output)
    if follower is not None and graph.nodes[follower].op_type == "Add":
        others = [name for name in graph.nodes[follower].input if name != output]
        value = graph.constants.get(others[0]) if len(others) == 1 else None
        if value is not None and value.ndim == 1 and value.shape[0] == graph.constants[node.input[1]].shape[1]:
            nodes.append(follower)
            bias, output = others[0], graph.nodes[follower].output[0]
    return Region(
        name=output,
        kind=Kind.MATMUL,
        op=node.op_type,
        nodes=tuple(nodes),
        inputs=(node.input[0],),
        output=output,
        raw_output=node.output[0],
        weight=node.input[1],
        bias=bias,
    )
