"""Write attention as one MultiHeadAttention.

The products that make Q, K and V stay apart, so that each can be quantized; their biases move into
the operator, which has to copy them anyhow. A mask stays what the model computes, added to the scores,
unless it says no more than which tokens are padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.forge.graph import Graph
from edgewise.forge.importing.attention_match import Cut, Mask, Match, attentions
from edgewise.forge.importing.gelu import DOMAIN
from edgewise.forge.importing.padding import padding_inputs

Shapes = Mapping[str, tuple[int, ...]]


def fuse_attention(model: onnx.ModelProto, shapes: Shapes) -> int:
    """Fuse every attention whose shapes, as seen in a run, fit; return how many.

    What is replaced is left behind for `passes.drop_unused`.
    """
    graph = Graph(model)
    matches = [match for match in attentions(graph) if _fits(match, shapes)]
    padding = padding_inputs(model, (match.mask for match in matches if match.mask))
    writer = _Writer(model, graph, shapes, padding)
    new = {match.last: writer.fused(match) for match in matches}
    if new:
        nodes = [each for index, node in enumerate(graph.nodes) for each in new.get(index, [node])]
        copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return len(new)


def shapes_needed(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors whose shapes `fuse_attention` reads; nothing where there is no attention."""
    return tuple(dict.fromkeys(name for match in attentions(Graph(model)) for name in match.tensors))


def _fits(match: Match, shapes: Shapes) -> bool:
    """Check that heads are cut and merged as the operator does it, and that the mask broadcasts."""
    if any(name not in shapes for name in match.tensors):
        return False
    query, key, value = (shapes[cut.heads] for cut in (match.query, match.key, match.value))
    for cut, heads in ((match.query, query), (match.key, key), (match.value, value)):
        if len(heads) != 4 or shapes[cut.whole] != (heads[0], heads[1], heads[2] * heads[3]):
            return False
    same = key[:3] == value[:3] and query[0] == key[0] and query[2:] == key[2:]
    if not same or shapes[match.output] != (query[0], query[1], value[2] * value[3]):
        return False
    if match.mask is None:
        return True
    mask = _four(shapes[match.mask.tensor])
    return (
        len(mask) == 4
        and mask[0] in (1, query[0])
        and mask[1] in (1, query[2])
        and mask[2] in (1, query[1])
        and mask[3] == key[1]
    )


class _Writer:
    """Writes fused operators; a mask that several of them read is prepared once."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, shapes: Shapes, padding: Mapping[Mask, str]) -> None:
        self._model = model
        self._graph = graph
        self._shapes = shapes
        self._padding = padding
        self._masks: dict[tuple[Mask, int], str] = {}
        self._cast: set[str] = set()

    def fused(self, match: Match) -> list[onnx.NodeProto]:
        """Return the operator and what must stand before it."""
        heads = self._shapes[match.query.heads][2]
        before: list[onnx.NodeProto] = []
        sources, bias = self._biases(match)
        inputs = [*sources, bias]
        if match.mask and match.mask in self._padding:
            inputs += [self._tokens(self._padding[match.mask], before)]
        elif match.mask:
            inputs += ["", self._mask(match, match.mask, before)]
        attention = helper.make_node(
            "MultiHeadAttention",
            inputs if any(inputs[3:]) else sources,
            [match.output],
            name=match.output,
            domain=DOMAIN,
            num_heads=heads,
            scale=match.scale,
        )
        return [*before, attention]

    def _biases(self, match: Match) -> tuple[list[str], str]:
        """Return Q, K and V without their biases, and these as one tensor."""
        cuts = (match.query, match.key, match.value)
        split = [self._without_bias(cut) for cut in cuts]
        if not any(bias for _, bias in split):
            return [cut.whole for cut in cuts], ""
        parts = [
            self._graph.constants[bias] if bias else np.zeros(self._shapes[cut.whole][2], np.float32)
            for cut, (_, bias) in zip(cuts, split, strict=True)
        ]
        name = f"{match.output}/qkv_bias"
        self._store(np.concatenate(parts), name)
        return [source for source, _ in split], name

    def _without_bias(self, cut: Cut) -> tuple[str, str]:
        graph = self._graph
        node = graph.nodes[graph.producers[cut.whole]] if cut.whole in graph.producers else None
        if node is None or node.op_type != "Add" or graph.sole_consumer(cut.whole) is None:
            return cut.whole, ""
        for source, bias in (node.input, reversed(node.input)):
            value = graph.constants.get(bias)
            if value is not None and value.shape == (self._shapes[cut.whole][2],):
                return source, bias
        return cut.whole, ""

    def _tokens(self, given: str, before: list[onnx.NodeProto]) -> str:
        """Return which tokens count, as the operator takes it: [batch, tokens] in int32."""
        name = f"{given}/int32"
        if given not in self._cast:
            self._cast.add(given)
            before.append(helper.make_node("Cast", [given], [name], name=name, to=TensorProto.INT32))
        return name

    def _mask(self, match: Match, mask: Mask, before: list[onnx.NodeProto]) -> str:
        """Return the mask as the operator takes it, [batch or 1, heads or 1, queries, keys]."""
        tokens = self._shapes[match.query.whole][1]
        known = self._masks.get((mask, tokens))
        if known is not None:
            return known
        name, shape = mask.tensor, self._shapes[mask.tensor]
        if mask.blocked is not None:
            name = self._blocked(match, mask, before)
        if len(shape) < 4 or shape[2] != tokens:
            name = self._expanded(match, name, before, rows=_four(shape)[2] != tokens)
        self._masks[mask, tokens] = name
        return name

    def _blocked(self, match: Match, mask: Mask, before: list[onnx.NodeProto]) -> str:
        """Write a condition as numbers to add."""
        blocked, free = f"{match.output}/blocked", f"{match.output}/free"
        self._store(np.array(mask.blocked, np.float32), blocked)
        self._store(np.array(0, np.float32), free)
        name = f"{match.output}/mask"
        both = [blocked, free] if mask.where else [free, blocked]
        before.append(helper.make_node("Where", [mask.tensor, *both], [name], name=name))
        self._state(name)
        return name

    def _expanded(self, match: Match, mask: str, before: list[onnx.NodeProto], *, rows: bool) -> str:
        """Give a mask four axes, and a row for each query where it has one for all."""
        one, shape, name = (f"{match.output}/{each}" for each in ("one", "mask_shape", "mask4"))
        self._store(np.array([1], np.int64), one)
        tokens = one
        if rows:
            tokens = f"{match.output}/tokens"
            before.append(helper.make_node("Shape", [match.query.whole], [tokens], name=tokens, start=1, end=2))
        before.append(helper.make_node("Concat", [one, one, tokens, one], [shape], name=shape, axis=0))
        before.append(helper.make_node("Expand", [mask, shape], [name], name=name))
        self._state(name)
        return name

    def _store(self, value: np.ndarray, name: str) -> None:
        self._model.graph.initializer.append(numpy_helper.from_array(value, name))

    def _state(self, name: str) -> None:
        """Write down the type of a new tensor."""
        self._model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (4 - len(shape)) + shape
