"""Write the Gelu that exporters spell out in five operators as one, with the bias before it."""

from __future__ import annotations

import math

import onnx
from onnx import helper

from edgewise.forge.graph import Graph

DOMAIN = "com.microsoft"


def fuse_gelus(model: onnx.ModelProto) -> int:
    """Replace x/2 * (1 + erf(x / sqrt 2)) by Gelu, or by BiasGelu where x is a product and its bias.

    What is replaced is left behind for `passes.drop_unused`; returns how many were found.
    """
    graph = Graph(model)
    found = 0
    for index, node in enumerate(graph.nodes):
        if node.op_type != "Erf" or node.domain:
            continue
        source = _scaled_source(graph, node.input[0], math.sqrt(0.5))
        last = _end(graph, index, source) if source is not None else None
        if source is None or last is None:
            continue
        biased = _biased(graph, source)
        output = graph.nodes[last].output[0]
        new = helper.make_node(
            "BiasGelu" if biased else "Gelu", list(biased or (source,)), [output], name=output, domain=DOMAIN
        )
        model.graph.node[last].CopyFrom(new)
        found += 1
    return found


def _end(graph: Graph, erf: int, source: str) -> int | None:
    """Return the node that ends the pattern: behind the Erf an Add of 1, and Muls by `source` and 1/2."""
    added = _next(graph, erf, "Add")
    if added is None or not _is_scalar(graph, _other(graph, added, graph.nodes[erf].output[0]), 1.0):
        return None
    first = _next(graph, added, "Mul")
    if first is None:
        return None
    other = _other(graph, first, graph.nodes[added].output[0])
    if _scaled_source(graph, other, 0.5) == source:
        return first
    second = _next(graph, first, "Mul")
    if second is None:
        return None
    last = _other(graph, second, graph.nodes[first].output[0])
    if (other == source and _is_scalar(graph, last, 0.5)) or (_is_scalar(graph, other, 0.5) and last == source):
        return second
    return None


def _biased(graph: Graph, source: str) -> tuple[str, str] | None:
    """Return product and bias where `source` is their sum, read by nothing but the pattern."""
    if source in graph.outputs or source not in graph.producers or len(graph.consumers[source]) > 2:
        return None
    added = graph.nodes[graph.producers[source]]
    if added.op_type != "Add" or added.domain:
        return None
    for product, bias in (added.input, reversed(added.input)):
        producer = graph.producers.get(product)
        is_product = producer is not None and graph.nodes[producer].op_type == "MatMul"
        if is_product and bias in graph.constants and graph.constants[bias].ndim == 1:
            return product, bias
    return None


def _scaled_source(graph: Graph, name: str, factor: float) -> str | None:
    """Return x where `name` is x * factor or x / (1 / factor)."""
    if name not in graph.producers:
        return None
    node = graph.nodes[graph.producers[name]]
    if node.op_type == "Div" and _is_scalar(graph, node.input[1], 1 / factor):
        return str(node.input[0])
    if node.op_type == "Mul":
        for source, scale in (node.input, reversed(node.input)):
            if _is_scalar(graph, scale, factor):
                return str(source)
    return None


def _next(graph: Graph, index: int, kind: str) -> int | None:
    follower = graph.sole_consumer(graph.nodes[index].output[0])
    return follower if follower is not None and graph.nodes[follower].op_type == kind else None


def _other(graph: Graph, index: int, name: str) -> str:
    inputs = list(graph.nodes[index].input)
    return str(inputs[1 - inputs.index(name)])


def _is_scalar(graph: Graph, name: str, value: float) -> bool:
    found = graph.scalar(name)
    return found is not None and math.isclose(found, value, rel_tol=1e-3)
