"""Find the attention that exporters spell out in thirty operators.

    softmax(scale * Q K^T + mask) V, each of Q, K, V cut into heads    (Vaswani et al. 2017, eq. 1, sec. 3.2.2)

A match is by structure: what cuts into heads is a Reshape between [batch, tokens, heads * size] and
[batch, tokens, heads, size], but as its sizes are computed in the graph, a run has to show them.
"""

from __future__ import annotations

import msgspec
import onnx

from edgewise.forge.graph import Graph, attribute

_HEADS_FIRST = (0, 2, 1, 3)
_KEYS_TRANSPOSED = (0, 2, 3, 1)
_AS_IS = (0, 1, 2, 3)
# Scores from here on down are masked for good: exp() of the difference is 0.
MASKING = -1e4


class Cut(msgspec.Struct, frozen=True):
    """A tensor that is cut into heads, and the factor that is applied to it on the way."""

    whole: str
    heads: str
    """The tensor after the Reshape, [batch, tokens, heads, size]."""
    scale: float


class Mask(msgspec.Struct, frozen=True):
    """What is added to the scores: a tensor, or `blocked` where a condition holds (or does not)."""

    tensor: str
    blocked: float | None = None
    where: bool = True


class Match(msgspec.Struct, frozen=True):
    """One attention: everything that the fused operator needs."""

    query: Cut
    key: Cut
    value: Cut
    scale: float
    mask: Mask | None
    last: int
    """The node whose place and output the fused operator takes."""
    output: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors whose shapes decide."""
        cuts = (self.query, self.key, self.value)
        masked = (self.mask.tensor,) if self.mask else ()
        return (*(name for cut in cuts for name in (cut.whole, cut.heads)), self.output, *masked)


class _Scores(msgspec.Struct, frozen=True):
    """What is under a softmax."""

    product: onnx.NodeProto
    mask: Mask | None = None
    scale: float = 1.0


def attentions(graph: Graph) -> tuple[Match, ...]:
    """Return all that looks like attention, in graph order of its last node."""
    found = [_match(graph, node) for node in graph.nodes if node.op_type == "Softmax" and not node.domain]
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.last))


def _match(graph: Graph, softmax: onnx.NodeProto) -> Match | None:
    if attribute(softmax, "axis", -1) not in (-1, 3):
        return None
    scores = _scores(graph, softmax.input[0])
    weighted = _follower(graph, softmax.output[0], "MatMul")
    if scores is None or weighted is None or graph.nodes[weighted].input[0] != softmax.output[0]:
        return None
    query = _cut(graph, scores.product.input[0], _HEADS_FIRST)
    key = _cut(graph, scores.product.input[1], _KEYS_TRANSPOSED)
    value = _cut(graph, graph.nodes[weighted].input[1], _HEADS_FIRST)
    moved = _follower(graph, graph.nodes[weighted].output[0], "Transpose")
    if query is None or key is None or value is None or value.scale != 1.0 or moved is None:
        return None
    merged = _follower(graph, graph.nodes[moved].output[0], "Reshape")
    if merged is None or tuple(attribute(graph.nodes[moved], "perm", ())) != _HEADS_FIRST:
        return None
    return Match(
        query=query,
        key=key,
        value=value,
        scale=scores.scale * query.scale * key.scale,
        mask=scores.mask,
        last=merged,
        output=graph.nodes[merged].output[0],
    )


def _scores(graph: Graph, name: str) -> _Scores | None:
    """Walk up from a softmax to the product of queries and keys, through the mask and the scale."""
    node = _producer(graph, name)
    if node is None or graph.sole_consumer(name) is None:
        return None
    if node.op_type == "MatMul":
        return None if any(each in graph.constants for each in node.input) else _Scores(node)
    if node.op_type in ("Mul", "Div"):
        factored = _factored(graph, node)
        inner = _unmasked(graph, factored[0]) if factored else None
        # A factor over the sum of scores and mask would have to be applied to the mask as well.
        return msgspec.structs.replace(inner, scale=inner.scale * factored[1]) if factored and inner else None
    for scores, mask in _masked(graph, node):
        inner = _unmasked(graph, scores)
        if inner is not None:
            return msgspec.structs.replace(inner, mask=mask)
    return None


def _masked(graph: Graph, node: onnx.NodeProto) -> list[tuple[str, Mask]]:
    """Return the ways in which a node may mask scores: what would be the scores, and what the mask."""
    if node.op_type == "Add":
        left, right = node.input
        return [(left, Mask(right)), (right, Mask(left))]
    found = []
    if node.op_type == "Where":
        for position in (1, 2):
            blocked = graph.scalar(node.input[3 - position])
            if blocked is not None and blocked <= MASKING:
                found.append((node.input[position], Mask(node.input[0], blocked, position == 2)))
    return found


def _unmasked(graph: Graph, name: str) -> _Scores | None:
    inner = _scores(graph, name)
    return inner if inner is not None and inner.mask is None else None


def _cut(graph: Graph, name: str, order: tuple[int, ...]) -> Cut | None:
    """Walk up through transpositions, which must come to `order`, and factors to where heads are cut."""
    axes, scale = _AS_IS, 1.0
    while (node := _producer(graph, name)) is not None:
        if node.op_type == "Transpose":
            perm = tuple(attribute(node, "perm", ()))
            if len(perm) != len(axes):
                return None
            axes = tuple(perm[axis] for axis in axes)
            name = node.input[0]
        elif node.op_type in ("Mul", "Div"):
            factored = _factored(graph, node)
            if factored is None:
                return None
            name, scale = factored[0], scale * factored[1]
        else:
            is_cut = node.op_type == "Reshape" and axes == order
            return Cut(node.input[0], name, scale) if is_cut else None
    return None


def _factored(graph: Graph, node: onnx.NodeProto) -> tuple[str, float] | None:
    """Return what a node multiplies by a constant number, and that number."""
    left, right = node.input
    factor = graph.scalar(right)
    if factor is not None:
        return left, (1.0 / factor if node.op_type == "Div" else factor)
    factor = graph.scalar(left)
    return (right, factor) if factor is not None and node.op_type == "Mul" else None


def _producer(graph: Graph, name: str) -> onnx.NodeProto | None:
    node = graph.nodes[graph.producers[name]] if name in graph.producers else None
    return node if node is not None and not node.domain else None


def _follower(graph: Graph, name: str, kind: str) -> int | None:
    follower = graph.sole_consumer(name)
    return follower if follower is not None and graph.nodes[follower].op_type == kind else None
