"""Refuse graphs of absurd sizes, with data that do not fit their sizes, or out of order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto

from edgewise.errors import HostileModelError, ModelError
from edgewise.forge.importing.limits import GIB, MAX_MODEL_BYTES
from edgewise.forge.importing.tensors import graphs, is_external, nested, nodes, stated_bytes, subgraphs, tensors

MAX_NODES = 200_000
MAX_ELEMENTS = 2**31

# Where a tensor's numbers stand if not in raw_data. Complex numbers take two entries.
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}


def check_sizes(model: onnx.ModelProto, name: str) -> None:
    """Refuse more nodes, elements or bytes than a model for a device can have."""
    count = _inlined(model, name)
    if count > MAX_NODES:
        raise HostileModelError(
            f"{name}: {count} nodes", required=f"at most {MAX_NODES}", next_step="do not load this file"
        )
    total = 0
    for tensor in tensors(model):
        _check_elements(f"{name}: tensor {tensor.name!r}", tensor.dims)
        if not is_external(tensor):
            _check_data(tensor, name)
        total += stated_bytes(tensor) or 0
    if total > MAX_MODEL_BYTES:
        raise ModelError(
            f"{name}: {total / GIB:.1f} GiB of weights",
            required=f"at most {MAX_MODEL_BYTES / GIB:g} GiB, what one ONNX file can hold",
            next_step="split the model, or store large tables in int8 before importing it",
        )
    for value in model.graph.input:
        _check_elements(f"{name}: input {value.name!r}", [axis.dim_value for axis in value.type.tensor_type.shape.dim])


def check_text(model: onnx.ModelProto, name: str) -> None:
    """Refuse names that are not text, which protobuf lets through as bytes."""
    try:
        spoilt = any(isinstance(each, bytes) for each in _texts(model))
    except UnicodeDecodeError:
        spoilt = True
    if spoilt:
        raise ModelError(
            f"{name}: it holds names that are not UTF-8",
            required="names of nodes and tensors in UTF-8",
            next_step="export the model again; copy it again if it was damaged on the way",
        )


def _texts(model: onnx.ModelProto) -> Iterator[str]:
    for node in nodes(model):
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        yield from (each.name for each in node.attribute)
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (axis.dim_param for axis in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in tensors(model))
    yield from (each.domain for each in model.opset_import)


def check_order(graph: onnx.GraphProto, name: str, outer: frozenset[str] = frozenset()) -> None:
    """Refuse cycles, and tensors written twice or read before they exist, with the node's name."""
    initial = [each.name for each in graph.initializer] + [each.values.name for each in graph.sparse_initializer]
    for kind, names in (
        ("input", [each.name for each in graph.input]),
        ("initializer", initial),
        ("output", [each.name for each in graph.output]),
    ):
        twice = _first_twice(names)
        if twice is not None:
            raise ModelError(
                f"{name}: the {kind} {twice!r} stands there twice",
                required=f"{kind}s with names of their own",
                next_step="export the model again",
            )
    known = {*outer, *initial, *(each.name for each in graph.input)}
    written = {output for node in graph.node for output in node.output if output}
    for node in graph.node:
        _check_node(node, name, known, written)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(
                f"{name}: nothing writes the output {value.name!r}",
                required="outputs that the graph computes",
                next_step="export the model again",
            )


def _check_node(node: onnx.NodeProto, name: str, known: set[str], written: set[str]) -> None:
    for tensor in node.input:
        if tensor and tensor not in known:
            why = "before it is written: the graph has a cycle or is out of order"
            raise ModelError(
                f"{name}: node {node.name or node.op_type!r} reads {tensor!r} "
                + (why if tensor in written else "which nothing writes"),
                required="an acyclic graph in topological order",
                next_step="export the model again",
            )
    for inner in subgraphs(node):
        check_order(inner, name, frozenset(known))
    for tensor in node.output:
        if tensor and tensor in known:
            raise ModelError(
                f"{name}: tensor {tensor!r} is written twice",
                required="each tensor written once",
                next_step="export the model again",
            )
        known.add(tensor)


def _inlined(model: onnx.ModelProto, name: str) -> int:
    """Count nodes as they will be once functions are inlined, which can double with each level of calls."""
    bodies = {(each.domain, each.name): each for each in model.functions}
    counted: dict[tuple[str, str], int] = {}
    entered: set[tuple[str, str]] = set()

    def cost(given: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nested(given):
            key = (node.domain, node.op_type)
            if key not in bodies:
                total += 1
                continue
            if key not in counted:
                if key in entered or len(entered) >= _DEEPEST_CALLS:
                    raise HostileModelError(
                        f"{name}: the function {node.op_type!r} calls itself, or is called too deeply",
                        required=f"functions that do not recur, at most {_DEEPEST_CALLS} deep",
                        next_step="do not load this file",
                    )
                entered.add(key)
                counted[key] = cost(bodies[key].node)
                entered.remove(key)
            total += counted[key]
        return total

    return max(cost(model.graph.node), sum(1 for _ in nodes(model)))


_DEEPEST_CALLS = 64


def _check_elements(what: str, dims: Iterable[int]) -> None:
    sizes = list(dims)
    if any(size < 0 for size in sizes):
        raise HostileModelError(
            f"{what} has a negative size: {sizes}", required="sizes of 0 or more", next_step="do not load this file"
        )
    count = math.prod(size or 1 for size in sizes)
    if count > MAX_ELEMENTS:
        raise HostileModelError(
            f"{what} states {count} elements", required=f"at most {MAX_ELEMENTS}", next_step="do not load this file"
        )


def _check_data(tensor: onnx.TensorProto, name: str) -> None:
    stated = stated_bytes(tensor)
    if tensor.HasField("raw_data"):
        held, expected, unit = len(tensor.raw_data), stated, "bytes"
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        held, expected, unit = len(getattr(tensor, field)), _entries(tensor), "numbers"
    if held != expected:
        raise ModelError(
            f"{name}: tensor {tensor.name!r} holds {held} {unit} for sizes {list(tensor.dims)}",
            required=f"{expected} {unit}" if expected is not None else "a known type of numbers",
            next_step="export the model again, or copy it again if it was cut short",
        )


def _entries(tensor: onnx.TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    if tensor.data_type in (TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1):
        return -(-count // 2)
    return count


def _first_twice(names: list[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
