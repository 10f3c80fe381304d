"""What a model is made of: operators, multiply-adds, parameters, activation memory, and what quantizes where."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx

from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Format
from edgewise.forge.graph import Graph, attribute
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.regions import Kind, Region, macs, regions_of

# Operators that multiply and add, for which no formula stands below: their count is unknown, not 0.
_MULTIPLY = frozenset(
    {"Attention", "ConvInteger", "Einsum", "GRU", "If", "Loop", "MatMulInteger", "MatMulNBits", "MultiHeadAttention"}
    | {"QLinearConv", "QLinearMatMul", "RNN", "Scan"}
)

Shape = tuple[int | None, ...]


class TensorFact(Value, kw_only=True):
    """An input or output of the model; None is a dynamic axis."""

    name: str
    dtype: str
    shape: Shape | None


class RegionFact(Value, kw_only=True):
    """One region of the normalised graph, and the formats it can be lowered to."""

    region: str
    op: str
    kind: str
    macs: int | None
    parameters: int
    formats: tuple[Format, ...]


class Inspection(Value, kw_only=True):
    """What a model is made of, for one inference (batch 1). What dynamic axes leave open is None, never 0."""

    model: str
    digest: str
    opset: int
    """Of the file as given."""
    size_bytes: int
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    operators: dict[str, int]
    """Of the normalised graph, the most frequent first."""
    parameters: int
    macs: int | None
    peak_activation_bytes: int | None
    """The most bytes of tensors that are live at one time, each tensor stored apart."""
    regions: tuple[RegionFact, ...]
    notes: tuple[str, ...]


def inspect(path: str, *, base: Path, inputs: Mapping[str, tuple[int, ...]]) -> Inspection:
    """Import a model as a run would, in the sandbox, and take it apart. Raises ModelError.

    `inputs` gives shapes by input name: those of dynamic axes, or all of a torch module's.
    """
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        imported = import_model(path, base=base, inputs=dict(inputs), work=Path(folder))
        original = onnx.load(str(imported.original), load_external_data=False)
        graph = Graph(onnx.load(str(imported.normalised)))
        size = imported.original.stat().st_size
    facts = tuple(_region(graph, each) for each in regions_of(graph))
    counts = [each.macs for each in facts]
    known = [each for each in counts if each is not None]
    return Inspection(
        model=path,
        digest=imported.digest,
        opset=next((each.version for each in original.opset_import if each.domain in ("", "ai.onnx")), 0),
        size_bytes=size,
        inputs=tuple(_tensor(graph, name) for name in graph.inputs),
        outputs=tuple(_tensor(graph, name) for name in graph.outputs),
        operators=dict(Counter(node.op_type for node in graph.nodes if node.op_type != "Constant").most_common()),
        parameters=sum(each.size for each in graph.constants.values() if each.dtype.kind == "f"),
        macs=sum(known) if len(known) == len(counts) else None,
        peak_activation_bytes=peak_activation_bytes(graph),
        regions=facts,
        notes=imported.notes,
    )


def region_macs(graph: Graph, region: Region) -> int | None:
    """Return multiply-adds of a region for one inference, or None where they cannot be told.

    Products of two activations, LSTMs and convolutions with computed weights count too; what only
    adds, compares or moves has none.
    """
    if region.weight is not None and region.kind is not Kind.LSTM:
        return macs(graph, region)
    found = [node_macs(graph, graph.nodes[at]) for at in region.nodes]
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def node_macs(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return multiply-adds of one node (the leading axis is the batch and left out), None where unknown."""
    shapes = [graph.shapes.get(name) for name in node.input]
    match node.op_type:
        case "MatMul" | "Gemm":
            inner = 0 if node.op_type == "Gemm" and attribute(node, "transA", 0) else -1
            depth = shapes[0][inner] if shapes[0] else None
            return _product(_cells(graph.shapes.get(node.output[0])), depth)
        case "Conv":
            return _product(_cells(graph.shapes.get(node.output[0])), _cells(shapes[1]))
        case "ConvTranspose":
            return _product(_cells(shapes[0]), _cells(shapes[1]))
        case "LSTM":
            # Per step and direction: four gates of [hidden, input] and [hidden, hidden].
            steps = shapes[0][0] if shapes[0] else None
            weights = [_product(each[0], _cells(each)) if each else None for each in shapes[1:3]]
            known = [each for each in weights if each is not None]
            return _product(steps, sum(known)) if len(known) == len(weights) else None
        case op if op in _MULTIPLY:
            return None
    return 0


def peak_activation_bytes(graph: Graph) -> int | None:
    """Return the most bytes of activations that are live while one node runs, None where a size is unknown.

    A tensor lives from the node that writes it to the last that reads it; outputs live to the end.
    A leading dynamic axis is the batch, of 1. Runtimes that work in place need less.
    """
    last = {name: max(readers) for name, readers in graph.consumers.items()}
    end = len(graph.nodes)
    last |= dict.fromkeys(graph.outputs, end)
    types = _element_types(graph)
    sizes: dict[str, int] = {}
    for name in (*graph.inputs, *(name for node in graph.nodes for name in node.output if name)):
        if name in graph.constants:
            continue
        size = _bytes(graph.shapes.get(name), types.get(name, 0))
        if size is None:
            return None
        sizes[name] = size
    live = sum(sizes[name] for name in graph.inputs)
    peak = live
    for at, node in enumerate(graph.nodes):
        live += sum(sizes[name] for name in node.output if name in sizes)
        peak = max(peak, live)
        touched = dict.fromkeys([*(each for each in last if last[each] == at), *node.output])
        live -= sum(sizes[name] for name in touched if name in sizes and last.get(name, at) <= at)
    return peak


def _region(graph: Graph, region: Region) -> RegionFact:
    names = {name for at in region.nodes for name in graph.nodes[at].input if name in graph.constants}
    return RegionFact(
        region=region.name,
        op=region.op,
        kind=region.kind.value,
        macs=region_macs(graph, region),
        parameters=sum(graph.constants[name].size for name in names if graph.constants[name].dtype.kind == "f"),
        formats=region.formats,
    )


def _tensor(graph: Graph, name: str) -> TensorFact:
    return TensorFact(name=name, dtype=_dtype(graph, name) or "unknown", shape=graph.shapes.get(name))


def _dtype(graph: Graph, name: str) -> str | None:
    kind = _element_types(graph).get(name, 0)
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else None


def _element_types(graph: Graph) -> dict[str, int]:
    proto = graph.model.graph
    return {each.name: each.type.tensor_type.elem_type for each in (*proto.value_info, *proto.input, *proto.output)}


def _bytes(shape: Shape | None, kind: int) -> int | None:
    if shape is None or not kind or None in shape[1:]:
        return None
    cells: int = math.prod(axis if axis is not None else 1 for axis in shape)
    width: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return cells * width


def _cells(shape: Shape | None) -> int | None:
    """Return the product of all axes but the first, None where one is unknown."""
    if shape is None or None in shape[1:]:
        return None
    return math.prod(axis for axis in shape[1:] if axis is not None)


def _product(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one * other
