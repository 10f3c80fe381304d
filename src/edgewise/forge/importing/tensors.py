"""Walks over all of a model: nodes and stored tensors, in subgraphs and functions too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, TensorProto

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes (If, Loop, Scan)."""
    for each in node.attribute:
        if each.type == AttributeProto.GRAPH:
            yield each.g
        elif each.type == AttributeProto.GRAPHS:
            yield from each.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every one inside it; protobuf itself limits how deep they stand."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a model."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from nested(function.node)


def nested(given: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in given:
        yield node
        for inner in subgraphs(node):
            yield from nested(inner.node)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor of a model."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for each in node.attribute:
            if each.type == AttributeProto.TENSOR:
                yield each.t
            elif each.type == AttributeProto.TENSORS:
                yield from each.tensors
            elif each.type == AttributeProto.SPARSE_TENSOR:
                yield from (each.sparse_tensor.values, each.sparse_tensor.indices)


def stated_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes the type and the sizes of a tensor ask for; None for strings."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else -(-math.prod(tensor.dims) * bits // 8)


def external_entries(tensor: onnx.TensorProto) -> dict[str, str]:
    """Return where a tensor's external data stands: location, offset, length."""
    return {each.key: each.value for each in tensor.external_data}


def is_external(tensor: onnx.TensorProto) -> bool:
    """Say whether a tensor's data stand in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)
