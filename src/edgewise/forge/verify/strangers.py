"""Nodes and constants of a variant that neither fp32 nor quantization explains."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import onnx

from edgewise.forge.graph import Array, Graph
from edgewise.forge.verify.match import Match
from edgewise.forge.verify.weights import bearers

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"})
_STANDARD = frozenset({"", "ai.onnx"})
# What quantizers write: conversions, and what stands around them.
_CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Identity", "Constant"}
)
_INTEGER = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
# An operator on integers may bring a Mul for its scale, an Add for its bias, and that bias's Reshape.
_BRINGS = {
    "ConvInteger": {"Mul": 2, "Add": 1, "Reshape": 1},
    "MatMulInteger": {"Mul": 2, "Add": 1},
    "MatMulIntegerToFloat": {"Add": 1, "Mul": 1},
    "MatMulNBits": {"Add": 1, "Mul": 1},
    "DynamicQuantizeMatMul": {"Add": 1, "Mul": 1},
}
_MOST_HASHED = 1 << 26


def strange_nodes(references: Sequence[Graph], variant: Graph) -> list[tuple[str, list[str], bool]]:
    """Return (operator, nodes, whether its domain is foreign) of what no form of fp32 explains.

    Counted by operator: an operator may occur as often as in the form of fp32 that has most of it.
    """
    known = [Counter(_kind(node) for node in graph.nodes) for graph in references]
    domains = _DOMAINS | {node.domain for graph in references for node in graph.nodes}
    there: dict[str, list[str]] = defaultdict(list)
    allowed: Counter[str] = Counter()
    foreign: dict[str, list[str]] = defaultdict(list)
    for node in variant.nodes:
        kind, name = _kind(node), node.name or (node.output[0] if node.output else "?")
        if node.domain not in domains:
            foreign[f"{node.domain}::{node.op_type}"].append(name)
            continue
        for brought, count in _BRINGS.get(node.op_type, {}).items():
            allowed[brought] += count
        if node.domain in _STANDARD and node.op_type not in _CONVERSIONS and node.op_type not in _INTEGER:
            there[kind].append(name)
    found = [(kind, names, True) for kind, names in foreign.items()]
    for kind, names in there.items():
        most = max((counts[kind] for counts in known), default=0) + allowed[kind]
        if len(names) > most:
            fresh = [name for name in names if not _is_known(references, name)] or names
            found.append((kind, fresh[: len(names) - most] if len(fresh) >= len(names) - most else fresh, False))
    return found


def strange_constants(references: Sequence[Graph], found: Match) -> list[str]:
    """Return the float constants that no form of fp32 has, and that are no scale, weight or bias."""
    known = {_digest(value) for graph in references for value in graph.constants.values() if _counts(value)}
    explained = _explained(found)
    return [
        name
        for name, value in found.variant.constants.items()
        if _counts(value) and name not in explained and _digest(value) not in known
    ]


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _STANDARD else f"{node.domain}::{node.op_type}"


def _is_known(references: Sequence[Graph], name: str) -> bool:
    return any(name == node.name or name in node.output for graph in references for node in graph.nodes)


def _counts(value: Array) -> bool:
    return value.dtype.kind == "f" and value.size > 1 and value.size < _MOST_HASHED


def _digest(value: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def _explained(found: Match) -> set[str]:
    """Return the constants that stand at the inputs of weighted operators and of conversions."""
    names: set[str] = set()
    weighted = {each.index for each in bearers(found.variant)}
    for index, node in enumerate(found.variant.nodes):
        integer = node.op_type.startswith(("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger", "MatMulNBits"))
        if index in weighted or integer or node.op_type in _CONVERSIONS:
            names.update(node.input)
        elif node.op_type in ("Add", "Mul", "Reshape"):
            # A bias, or a scale, behind an operator on integers.
            names.update(name for name in node.input if _is_beside(found.variant, name, node))
    return names


def _is_beside(variant: Graph, name: str, node: onnx.NodeProto) -> bool:
    value = variant.constants.get(name)
    if value is None or value.ndim > 1:
        return False
    others = [variant.producers.get(each) for each in node.input if each != name]
    makers = {variant.nodes[at].op_type for at in others if at is not None}
    integer = {"MatMulNBits", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "Cast", "Mul", "MatMul", "Conv"}
    return node.op_type == "Mul" or bool(makers & integer)
