"""Read the nodes of an ONNX file (names, operators, tensor names) without the `onnx` library.

A device installs without `onnx`, and a profile only needs to know which tensors each kernel reads
and writes. So this reads the few protobuf fields concerned (protobuf's encoding guide: a record is
a varint `field << 3 | wire type`, then its payload) and skips all others, weights included, without
copying them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from edgewise.errors import ModelError

_MAX_NODES = 1_000_000
_MAX_DEPTH = 32
"""Limits against hostile files: real graphs have tens of thousands of nodes, nested a few deep."""

_ADDED = re.compile(r"(_nchwc|_nhwc|_token_\d+|/[A-Za-z]+Fusion/?|/WithoutBiases)$")

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_NODE = 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11


class Node(msgspec.Struct, frozen=True):
    """One node of a graph: its name, operator, and tensor names in order."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Origins:
    """Which tensors of a model a fused kernel computes, told by the kernel's name and outputs.

    How the runtimes name what they fuse or lay out anew, found by experiment (ONNX Runtime 1.32,
    OpenVINO 2026.4):

    * NCHWc convolutions and pools: `<output tensor>_nchwc`, the tensor being that of a fused
      activation, but not of a residual Add fused in as the fourth input: that kernel is named after
      the convolution, and the Add has no kernel of its own.
    * NHWC copies of QLinearConv, pools and resizes: `<node name>_token_<n>`, and so their outputs.
    * `<node>/MatMulAddFusion`, `<node>/MatMulScaleFusion/`: the output keeps the last node's name.
    * QDQ fusions (QLinearConv, QLinearAdd, QGemm, ...) keep the name of the float node, and their
      output is that of the QuantizeLinear behind it.
    * OpenVINO's convolutions with a bias: `<node>/WithoutBiases`.

    A model whose nodes are named after their first output makes all of these rules agree.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Index the nodes of the model as given."""
        self._tensors = {name for node in nodes for name in node.outputs if name}
        self._by_node: dict[str, tuple[str, ...]] = {}
        for node in nodes:
            if node.name:
                self._by_node.setdefault(node.name, node.outputs)

    def of(self, name: str, outputs: Sequence[str] = ()) -> tuple[str, ...]:
        """Return names of tensors: what the kernel is named after, then what it writes itself."""
        found: list[str] = []
        for stem in _stems(name):
            if stem in self._tensors:
                found.append(stem)
                break
            if stem in self._by_node:
                found += self._by_node[stem]
                break
        found += [each for each in outputs if each in self._tensors]
        return tuple(dict.fromkeys(found))


def _stems(name: str) -> Iterator[str]:
    """Yield a name and what it was made from."""
    yield name
    while (shorter := _ADDED.sub("", name)) != name:
        yield shorter
        name = shorter


def read_nodes(model: bytes) -> tuple[Node, ...]:
    """Return the nodes of a serialised ModelProto in file order, a subgraph's before its owner.

    Raises ModelError where the bytes are not a protobuf message, or pass the limits above.
    """
    found: list[Node] = []
    for field, payload in _records(memoryview(model)):
        if field == _MODEL_GRAPH:
            _read_graph(payload, found, depth=0)
    return tuple(found)


def _read_graph(graph: memoryview, found: list[Node], *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ModelError("subgraphs are nested too deep", required=f"at most {_MAX_DEPTH} levels")
    for field, payload in _records(graph):
        if field == _GRAPH_NODE:
            found.append(_read_node(payload, found, depth=depth))
            if len(found) > _MAX_NODES:
                raise ModelError("the graph has too many nodes", required=f"at most {_MAX_NODES}")


def _read_node(node: memoryview, found: list[Node], *, depth: int) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    texts = {_NODE_NAME: "", _NODE_OP_TYPE: ""}
    for field, payload in _records(node):
        if field == _NODE_INPUT:
            inputs.append(_text(payload))
        elif field == _NODE_OUTPUT:
            outputs.append(_text(payload))
        elif field in texts:
            texts[field] = _text(payload)
        elif field == _NODE_ATTRIBUTE:
            for inner, value in _records(payload):
                if inner in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
                    _read_graph(value, found, depth=depth + 1)
    return Node(texts[_NODE_NAME], texts[_NODE_OP_TYPE], tuple(inputs), tuple(outputs))


def _records(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, payload) of the length-delimited records; others are skipped."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        match key & 7:
            case 0:  # varint
                _, position = _varint(message, position)
            case 1:  # eight bytes
                position += 8
            case 5:  # four bytes
                position += 4
            case 2:  # length, then so many bytes
                size, position = _varint(message, position)
                yield key >> 3, message[position : position + size]
                position += size
            case _:
                raise _not_a_model()
    if position != len(message):
        raise _not_a_model()


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return a varint and the position behind it; at most ten bytes, low groups first."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _not_a_model()


def _text(payload: memoryview) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise _not_a_model() from error


def _not_a_model() -> ModelError:
    return ModelError(
        "the file is not an ONNX model (its protobuf records do not parse)",
        required="a whole ONNX ModelProto",
        next_step="check that the file was not truncated",
    )
