"""The weights of a variant beside those of fp32, as rows by output channel, whatever operator holds them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from edgewise.forge.graph import Array, Graph, attribute
from edgewise.forge.verify.quantized import meanings, stem
from edgewise.numerics.packing import unpack_nbits

FloatArray = NDArray[np.float32]

_FLOAT_OPS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "FusedConv": 1, "FusedGemm": 1, "FusedMatMul": 1}
# Positions of (weight, scale, zero point, bias, scale of the input) of operators on integers; -1 for what they lack.
_INTEGER_OPS = {
    "QLinearConv": (3, 4, 5, 8, 1),
    "QLinearMatMul": (3, 4, 5, -1, -1),
    "QGemm": (3, 4, 5, 6, 1),
    "MatMulIntegerToFloat": (1, 3, 5, 6, -1),
    "DynamicQuantizeMatMul": (1, 2, 3, 4, -1),
    "ConvInteger": (1, -1, 3, -1, -1),
    "MatMulInteger": (1, -1, 3, -1, -1),
}
_LIKE = {
    "QLinearConv": "Conv",
    "ConvInteger": "Conv",
    "FusedConv": "Conv",
    "QGemm": "Gemm",
    "FusedGemm": "Gemm",
}
_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast"})


class Values(msgspec.Struct, frozen=True):
    """A constant as the floats it stands for. `step` and `edge` are None where it is stored as floats."""

    floats: FloatArray
    step: FloatArray | None = None
    """The distance between neighbouring levels, of the shape of `floats`."""
    edge: NDArray[np.bool_] | None = None
    """Where the value lies on the first or last level."""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """One weighted operator: rows [out, everything else]."""

    name: str
    """The tensor the operator writes, by the name it has in fp32 where that is known."""
    stored: str
    """The initializer that holds the weight."""
    op: str
    rows: FloatArray
    step: FloatArray | None
    edge: NDArray[np.bool_] | None
    bias: FloatArray | None
    bias_step: FloatArray | None


class Bearer(msgspec.Struct, frozen=True):
    """Where a weighted operator stands, before anything is read."""

    index: int
    name: str
    """The stem of the tensor it writes."""
    stored: str
    """The stem of its weight."""
    shape: tuple[int, ...]
    """Of its rows' tensor as stored, sorted: alike however it is transposed."""


def bearers(graph: Graph) -> tuple[Bearer, ...]:
    """Return the operators with a constant weight, in graph order."""
    root = meanings(graph)
    found = []
    for index, node in enumerate(graph.nodes):
        position = _weight_position(node)
        if position is None or len(node.input) <= position:
            continue
        origin = _origin(graph, node.input[position])
        if origin is None or graph.constants[origin].ndim < 2:
            continue
        shape = _shape(node, graph.constants[origin])
        name = stem(root.get(node.output[0], node.output[0]))
        found.append(Bearer(index, name, stem(origin), tuple(sorted(shape))))
    return tuple(found)


def paired(reference: Graph, variant: Graph) -> Iterator[tuple[Bearer, Bearer | None]]:
    """Yield fp32's weighted operators, each with the variant's that stands for it, or None.

    Tied by the tensor they write, else by their weight's name, else by their order where as many of one shape
    are left on both sides.
    """
    mine, theirs = bearers(reference), bearers(variant)
    pairs = _tied(mine, theirs)
    for each in mine:
        yield each, pairs.get(each.index)


def read(graph: Graph, bearer: Bearer) -> Weight | None:
    """Return an operator's weight and bias, or None where they are stored in a way that is not known here."""
    node = graph.nodes[bearer.index]
    values, bias = _values(graph, node)
    if values is None:
        return None
    rows, step, edge = (
        None if each is None else _rows(node, each) for each in (values.floats, values.step, values.edge)
    )
    if rows is None:
        return None
    return Weight(
        name=bearer.name,
        stored=_origin(graph, node.input[_weight_position(node) or 0]) or "",
        op=node.op_type,
        rows=rows,
        step=step,
        edge=edge,
        bias=None if bias is None else bias.floats.reshape(-1),
        bias_step=None if bias is None or bias.step is None else bias.step.reshape(-1),
    )


def constant(graph: Graph, name: str) -> Values | None:
    """Return what a tensor stands for that depends on constants alone, else None."""
    if name in graph.constants:
        value = graph.constants[name]
        floats = value.astype(np.float32)
        # The levels of fp16 lie as far apart as its exponent says; what it stores is rounded to the nearest of them.
        return Values(floats, np.spacing(np.abs(value)).astype(np.float32) if value.dtype == np.float16 else None)
    at = graph.producers.get(name)
    if at is None:
        return None
    node = graph.nodes[at]
    if node.op_type == "DequantizeLinear":
        return _dequantized(graph, node)
    if node.op_type not in _MOVES:
        return None
    held = constant(graph, node.input[0])
    return None if held is None else _moved(graph, node, held)


def _weight_position(node: onnx.NodeProto) -> int | None:
    if node.op_type == "MatMulNBits":
        return 1
    if node.op_type in _INTEGER_OPS:
        return _INTEGER_OPS[node.op_type][0]
    return _FLOAT_OPS.get(node.op_type)


def _tied(mine: tuple[Bearer, ...], theirs: tuple[Bearer, ...]) -> dict[int, Bearer]:
    pairs: dict[int, Bearer] = {}
    taken: set[int] = set()
    for key in (_by_output, _by_weight):
        index = {key(each): each for each in reversed(theirs) if each.index not in taken}
        for each in mine:
            found = index.get(key(each))
            if each.index not in pairs and found is not None and found.index not in taken and _alike(each, found):
                pairs[each.index] = found
                taken.add(found.index)
    left = [each for each in mine if each.index not in pairs]
    rest = [each for each in theirs if each.index not in taken]
    for shape in dict.fromkeys(each.shape for each in left):
        ours = [each for each in left if each.shape == shape]
        other = [each for each in rest if each.shape == shape]
        if len(ours) == len(other):
            pairs |= {each.index: found for each, found in zip(ours, other, strict=True)}
    return pairs


def _by_output(bearer: Bearer) -> str:
    return bearer.name


def _by_weight(bearer: Bearer) -> str:
    return bearer.stored


def _alike(one: Bearer, other: Bearer) -> bool:
    return one.shape == other.shape


def _origin(graph: Graph, name: str) -> str | None:
    """Return the initializer behind a constant tensor, or None where it is not constant."""
    while name not in graph.constants:
        at = graph.producers.get(name)
        if at is None:
            return None
        node = graph.nodes[at]
        if node.op_type not in _MOVES | {"DequantizeLinear", "QuantizeLinear"}:
            return None
        name = node.input[0]
    return name


def _shape(node: onnx.NodeProto, value: Array) -> tuple[int, ...]:
    if node.op_type == "MatMulNBits":
        return int(attribute(node, "K")), int(attribute(node, "N"))
    return value.shape


def _values(graph: Graph, node: onnx.NodeProto) -> tuple[Values | None, Values | None]:
    """Return the weight and the bias of an operator."""
    if node.op_type == "MatMulNBits":
        return _blocks(graph, node), None
    if node.op_type not in _INTEGER_OPS:
        has_bias = len(node.input) > 2 and node.input[2] and not node.op_type.endswith("MatMul")
        return constant(graph, node.input[1]), constant(graph, node.input[2]) if has_bias else None
    at, scale, zero_point, bias, scale_x = _INTEGER_OPS[node.op_type]
    scales = _scales(graph, node, at, scale)
    codes = graph.constants.get(node.input[at])
    if scales is None or codes is None:
        return None, None
    zeros = _input(graph, node, zero_point)
    first = _LIKE.get(node.op_type) == "Conv" or bool(attribute(node, "transB", 0))
    axis = 0 if first else codes.ndim - 1
    weight = _on_grid(codes, scales, zeros, axis=axis, block=0)
    held = _input(graph, node, bias)
    if held is None or held.dtype.kind == "f":
        return weight, None if held is None else Values(held.astype(np.float32))
    unit = _input(graph, node, scale_x)
    return weight, None if unit is None else _on_grid(held, scales * unit, None, axis=0, block=0)


def _input(graph: Graph, node: onnx.NodeProto, position: int) -> Array | None:
    if position < 0 or len(node.input) <= position:
        return None
    return graph.constants.get(node.input[position])


def _scales(graph: Graph, node: onnx.NodeProto, weight: int, position: int) -> Array | None:
    if position >= 0:
        return _input(graph, node, position)
    # ConvInteger and MatMulInteger leave the scale to a Mul behind them; its name stands beside the weight's.
    return graph.constants.get(f"{stem(node.input[weight])}_scale")


def _dequantized(graph: Graph, node: onnx.NodeProto) -> Values | None:
    scales, zeros = graph.constants.get(node.input[1]), _input(graph, node, 2)
    axis, block = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0))
    if scales is None:
        return None
    if node.input[0] in graph.constants:
        return _on_grid(graph.constants[node.input[0]], scales, zeros, axis=axis, block=block)
    at = graph.producers.get(node.input[0])
    writer = graph.nodes[at] if at is not None else None
    if writer is None or writer.op_type != "QuantizeLinear":
        return None
    held = constant(graph, writer.input[0])
    if held is None or zeros is None:
        return None
    unit, zero = _spread(scales, held.floats.shape, axis, block), _spread(zeros, held.floats.shape, axis, block)
    limits = np.iinfo(zeros.dtype)
    codes = np.clip(np.rint(held.floats / unit) + zero, limits.min, limits.max)
    return _on_grid(codes.astype(zeros.dtype), scales, zeros, axis=axis, block=block)


def _on_grid(codes: Array, scales: Array, zeros: Array | None, *, axis: int, block: int) -> Values:
    step = _spread(scales.astype(np.float32), codes.shape, axis, block)
    levels = codes.astype(np.float32)
    if zeros is not None:
        levels = levels - _spread(zeros.astype(np.float32), codes.shape, axis, block)
    # The ends that are in use: symmetric grids leave the lowest level out, 7-bit ones (reduce_range) half of them.
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    edge = (codes <= low) | (codes >= high)
    return Values((levels * step).astype(np.float32), step, np.asarray(edge, np.bool_))


def _spread(values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape)
    if block:
        return np.repeat(values, block, axis=axis)[tuple(slice(0, size) for size in shape)]
    full = [1] * len(shape)
    full[axis] = values.size
    return np.broadcast_to(values.reshape(full), shape)


def _blocks(graph: Graph, node: onnx.NodeProto) -> Values | None:
    packed, scales, zeros = (_input(graph, node, at) for at in (1, 2, 3))
    k, bits, block = (int(attribute(node, each)) for each in ("K", "bits", "block_size"))
    if packed is None or scales is None or (zeros is not None and zeros.dtype != np.uint8):
        return None
    floats = unpack_nbits(packed, scales.astype(np.float32), zeros, k=k, bits=bits, block=block)
    step = np.repeat(np.abs(scales.reshape(packed.shape[0], -1)), block, axis=1)[:, :k].T.astype(np.float32)
    # On scales of 1 and zero points of 0 the values are the codes; a symmetric block of [-1, 0.999] cuts the latter.
    codes = unpack_nbits(
        packed,
        np.ones(packed.shape[0] * packed.shape[1], np.float32),
        np.zeros(packed.shape[0] * -(-packed.shape[1] * bits // 8), np.uint8),
        k=k,
        bits=bits,
        block=block,
    )
    return Values(floats, step, np.asarray((codes == 0) | (codes == (1 << bits) - 1), np.bool_))


def _moved(graph: Graph, node: onnx.NodeProto, held: Values) -> Values | None:
    def move(value: Array | None) -> Array | None:
        if value is None or node.op_type in ("Identity", "Cast"):
            return value
        if node.op_type == "Transpose":
            return value.transpose(attribute(node, "perm", list(range(value.ndim))[::-1]))
        shape = graph.shapes.get(node.output[0])
        if node.op_type == "Reshape" and node.input[1] in graph.constants:
            return value.reshape([int(size) for size in graph.constants[node.input[1]]])
        return None if shape is None or None in shape else value.reshape([size for size in shape if size is not None])

    floats = move(held.floats)
    return None if floats is None else Values(floats, move(held.step), move(held.edge))


def _rows(node: onnx.NodeProto, values: Array) -> Array:
    """Return values of a weight's shape as [out, everything else]."""
    kind = _LIKE.get(node.op_type, node.op_type)
    if kind == "ConvTranspose":
        return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    if kind == "Conv" or (kind == "Gemm" and attribute(node, "transB", 0)):
        return values.reshape(values.shape[0], -1)
    return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
