"""Write what slides a window over an image as what costs less and means the same."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.forge.graph import Array, Graph, attribute


def convolve_blocks(model: onnx.ModelProto) -> bool:
    """Let a convolution read the image itself instead of blocks of it that were moved to channels first.

    SpaceToDepth (a detector's "focus") and a Gather that orders its channels only move values. A convolution of
    k x k behind them, with blocks of b x b, is one of bk x bk on the image that moves by b times its stride.
    """
    graph = Graph(model)
    changed = False
    for index, conv in enumerate(graph.nodes):
        if conv.op_type != "Conv" or conv.domain or conv.input[1] not in graph.constants:
            continue
        blocks, weight = _blocks(graph, conv.input[0]), graph.constants[conv.input[1]]
        if blocks is None or not _is_plain(conv) or weight.shape[1] != blocks.order.size:
            continue
        spread = _spread(weight, blocks)
        name = f"{conv.output[0]}/weight_of_blocks"
        model.graph.initializer.append(numpy_helper.from_array(spread, name))
        pads, strides = attribute(conv, "pads", [0] * 4), attribute(conv, "strides", [1, 1])
        inputs = [blocks.image, name, *conv.input[2:]]
        model.graph.node[index].CopyFrom(
            helper.make_node(
                "Conv",
                inputs,
                list(conv.output),
                name=conv.name,
                kernel_shape=list(spread.shape[2:]),
                pads=[blocks.size * each for each in pads],
                strides=[blocks.size * each for each in strides],
            )
        )
        changed = True
    return changed


def cascade_pools(model: onnx.ModelProto) -> bool:
    """Let a larger maximum be taken of the smaller ones that are there anyway.

    The maximum over n x n is that over (n - m + 1) x (n - m + 1) of maxima over m x m: the windows of a pyramid of
    pools (5, 9, 13) become small ones (5, 5, 5).
    """
    graph = Graph(model)
    pools: dict[str, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.nodes):
        size = _centred(node)
        if size is not None:
            pools.setdefault(node.input[0], []).append((size, index))
    chains = {min(at for _, at in found): _chain(graph, sorted(found)) for found in pools.values() if _sizes(found) > 1}
    gone = {at for found in pools.values() if _sizes(found) > 1 for _, at in found}
    if not chains:
        return False
    # All of them read one tensor, so where the first of them stands there is room for all.
    kept = [chains.get(at, [node]) for at, node in enumerate(graph.nodes) if at in chains or at not in gone]
    nodes = [onnx.NodeProto.FromString(each.SerializeToString()) for some in kept for each in some]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return True


def _sizes(found: list[tuple[int, int]]) -> int:
    return len({size for size, _ in found})


def _chain(graph: Graph, pools: list[tuple[int, int]]) -> list[onnx.NodeProto]:
    """Return pools of one tensor, smallest first, each of the one before it."""
    nodes = [graph.nodes[pools[0][1]]]
    for (small, before), (large, at) in pairwise(pools):
        node, step = graph.nodes[at], large - small + 1
        if step == 1:
            nodes.append(node)
            continue
        nodes.append(
            helper.make_node(
                "MaxPool",
                [graph.nodes[before].output[0]],
                list(node.output),
                name=node.name,
                kernel_shape=[step, step],
                pads=[step // 2] * 4,
                strides=[1, 1],
            )
        )
    return nodes


class _Blocks(msgspec.Struct, frozen=True):
    """The SpaceToDepth behind a convolution's input."""

    image: str
    channels: int
    size: int
    order: Array
    """Channel of the blocks that each input channel of the convolution is."""


def _blocks(graph: Graph, tensor: str) -> _Blocks | None:
    maker, order = _maker(graph, tensor), None
    if maker is not None and maker.op_type == "Gather" and attribute(maker, "axis", 0) == 1:
        order = graph.constants.get(maker.input[1])
        maker = _maker(graph, maker.input[0])
        if order is None or order.ndim != 1:
            return None
    if maker is None or maker.op_type != "SpaceToDepth" or maker.domain:
        return None
    shape, size = graph.shapes.get(maker.input[0]), int(attribute(maker, "blocksize"))
    if shape is None or len(shape) != 4 or shape[1] is None:
        return None
    every = np.arange(shape[1] * size * size)
    return _Blocks(maker.input[0], shape[1], size, every if order is None else every[order])


def _maker(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    index = graph.producers.get(tensor)
    return graph.nodes[index] if index is not None else None


def _is_plain(conv: onnx.NodeProto) -> bool:
    return (
        attribute(conv, "group", 1) == 1
        and all(each == 1 for each in attribute(conv, "dilations", [1, 1]))
        and attribute(conv, "auto_pad", b"NOTSET") in (b"NOTSET", b"")
    )


def _spread(weight: Array, blocks: _Blocks) -> Array:
    """Return a weight [out, j, k, l] of the blocks' channels as [out, channels, b k, b l] of the image.

    Channel (dy b + dx) C + c of SpaceToDepth holds the pixel (dy, dx) of channel c of each block.
    """
    out, _, high, wide = weight.shape
    made = np.zeros((out, blocks.channels, high, blocks.size, wide, blocks.size), weight.dtype)
    for j, at in enumerate(blocks.order.tolist()):
        place, channel = divmod(at, blocks.channels)
        down, right = divmod(place, blocks.size)
        made[:, channel, :, down, :, right] += weight[:, j]
    return made.reshape(out, blocks.channels, high * blocks.size, wide * blocks.size)


def _centred(node: onnx.NodeProto) -> int | None:
    """Return the size of a square MaxPool of odd size that moves by 1 and keeps the size of the image."""
    size = attribute(node, "kernel_shape", ())
    if node.op_type != "MaxPool" or node.domain or len(size) != 2 or size[0] != size[1] or size[0] % 2 == 0:
        return None
    if len(node.output) != 1 or attribute(node, "ceil_mode", 0) or attribute(node, "storage_order", 0):
        return None
    if any(each != 1 for key in ("strides", "dilations") for each in attribute(node, key, [1, 1])):
        return None
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return None
    return int(size[0]) if attribute(node, "pads", [0] * 4) == [size[0] // 2] * 4 else None
