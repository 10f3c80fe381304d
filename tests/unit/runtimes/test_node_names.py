from __future__ import annotations

import onnx
import pytest

from edgewise.errors import ModelError
from edgewise.runtimes.node_names import Node, Origins, read_nodes
from tests.unit.runtimes.models import branching, conv_relu_add, model_of, quantized_conv, serialised


@pytest.mark.parametrize("model", [conv_relu_add(), quantized_conv()])
def test_reads_what_the_onnx_library_reads(model: onnx.ModelProto) -> None:
    expected = [(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node]
    assert [(each.name, each.kind, each.inputs, each.outputs) for each in read_nodes(serialised(model))] == expected


def test_nodes_of_subgraphs_come_before_their_owner() -> None:
    kinds = [each.kind for each in read_nodes(serialised(branching()))]
    assert sorted(kinds[2:4]) == ["Abs", "Neg"]
    assert kinds[-1] == "If"


def test_empty_optional_inputs_keep_their_place() -> None:
    node = onnx.helper.make_node("Clip", ["x", "", "high"], ["y"])
    assert read_nodes(serialised(model_of([node], inputs={"x": [1]}, outputs=["y"])))[0].inputs == ("x", "", "high")


def test_a_truncated_file_is_refused() -> None:
    data = serialised(conv_relu_add())
    for length in (1, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelError, match="not an ONNX model"):
            read_nodes(data[:length])


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"\x3a\x04\x0a\x02\x1a\x09"])
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_nodes(data)


def test_text_that_is_not_utf8_is_refused() -> None:
    node = b"\x1a\x02\xff\xfe"
    graph = b"\x0a" + bytes([len(node)]) + node
    with pytest.raises(ModelError):
        read_nodes(b"\x3a" + bytes([len(graph)]) + graph)


def test_nesting_beyond_reason_is_refused() -> None:
    def record(field: int, payload: bytes) -> bytes:
        size, digits = len(payload), []
        while size > 127:
            digits.append(size & 127 | 128)
            size >>= 7
        return bytes([field << 3 | 2, *digits, size]) + payload

    graph = b""
    for _ in range(40):
        graph = record(1, record(5, record(6, graph)))
    with pytest.raises(ModelError, match="nested"):
        read_nodes(record(7, graph))


NODES = (
    Node("conv", "Conv", ("x",), ("conv_out",)),
    Node("clip", "Clip", ("conv_out",), ("clip_out",)),
    Node("product", "MatMul", ("clip_out",), ("product_out",)),
    Node("sum", "Add", ("product_out",), ("y",)),
)


@pytest.mark.parametrize(
    ("name", "outputs", "origins"),
    [
        ("clip_out_nchwc", ("reorder_token_2",), ("clip_out",)),
        ("clip_out_nchwc_token_3", (), ("clip_out",)),
        ("conv_token_12", ("conv_token_11",), ("conv_out",)),
        ("product/MatMulAddFusion", ("y",), ("product_out", "y")),
        ("product/MatMulScaleFusion/", ("y",), ("product_out", "y")),
        ("conv/WithoutBiases", (), ("conv_out",)),
        ("conv", ("conv_out",), ("conv_out",)),
        ("ReorderOutput", ("conv_out",), ("conv_out",)),
        ("Transpose", ("Transpose_out0",), ()),
    ],
)
def test_fused_kernels_are_traced_to_their_tensors(
    name: str, outputs: tuple[str, ...], origins: tuple[str, ...]
) -> None:
    assert Origins(NODES).of(name, outputs) == origins
