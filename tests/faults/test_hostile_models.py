"""Files that must not be imported: each is refused with one clear message, and nothing is written."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgewise.errors import EdgewiseError, HostileModelError, ModelError, OutputError
from edgewise.forge.importing.sandbox import import_model
from tests.unit.importing.models import conv_model, floats, model_of, node

Change = Callable[[onnx.ModelProto], object]
X: dict[str, list[int | str]] = {"x": ["n", 4]}
GRID: dict[str, NDArray[Any]] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}


def refused(path: Path, kind: type[EdgewiseError] = ModelError) -> EdgewiseError:
    """Import a file; check that it is refused in all three parts, and that nothing is left behind."""
    work = path.parent / "work"
    with pytest.raises(EdgewiseError) as caught:
        import_model(path.name, base=path.parent, inputs={}, work=work)
    error = caught.value
    assert type(error) is kind, error
    assert error.found
    assert error.required
    assert error.next_step
    assert "Traceback" not in str(error)
    assert not work.exists()
    return error


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


def relu(inputs: list[str] | None = None, outputs: list[str] | None = None) -> onnx.NodeProto:
    return node("Relu", inputs or ["x"], outputs or ["y"])


NOT_ONNX: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"This is not a model.\n" * 40, "not a readable ONNX file"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "zeros": (bytes(1000), "not a readable ONNX file"),
    "names that are no text": (conv_model().SerializeToString().replace(b"Conv", b"C\xff\xfev"), "not UTF-8"),
    "truncated": (conv_model().SerializeToString()[:-60], "not a readable ONNX file"),
    "only a header": (onnx.ModelProto(ir_version=8).SerializeToString(), "no nodes"),
}


@pytest.mark.parametrize("name", NOT_ONNX)
def test_what_is_no_onnx_file(tmp_path: Path, name: str) -> None:
    data, said = NOT_ONNX[name]
    assert said in refused(written(tmp_path, data)).found


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_short_anywhere(tmp_path: Path, keep: float) -> None:
    data = conv_model().SerializeToString()
    refused(written(tmp_path, data[: int(len(data) * keep)]))


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "a folder" in refused(tmp_path / "folder").found
    (tmp_path / "modell.onnx").touch()
    error = refused(tmp_path / "model.onnx")
    assert "no such file" in error.found
    assert "'modell.onnx'" in error.next_step


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model().SerializeToString())
    path.chmod(0)
    assert "Permission denied" in refused(path).found


def subgraph_model() -> onnx.ModelProto:
    inner = helper.make_graph(
        [relu(["not_there"], ["inner"])], "inner", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    )
    return model_of(
        [node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        inputs={"c": [1], **X}, kinds={"c": TensorProto.BOOL},
    )  # fmt: skip


def of_type(kind: int, *, weights: bool) -> onnx.ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if not weights:
        return model_of([relu()], inputs=X, kinds={"x": kind, "y": kind})
    nodes = [
        node("Cast", ["x"], ["half"], to=kind),
        node("MatMul", ["half", "w"], ["product"]),
        node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    return model_of(nodes, inputs=X, values={"w": floats(4, 4).astype(dtype)})


def calls(count: int, *, recursive: bool = False) -> onnx.ModelProto:
    """Return functions of which each calls the next one ten times over."""
    model = model_of([helper.make_node("f0", ["x"], ["y"], domain="mine")], inputs=X)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    for level in range(count):
        last = level + 1 == count
        op, domain = ("Relu", "") if last and not recursive else (f"f{0 if last else level + 1}", "mine")
        names = ["x", *(f"t{step}" for step in range(9)), "y"]
        body = [helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(names)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        model.functions.append(helper.make_function("mine", f"f{level}", ["x"], ["y"], body, opsets))
    return model


GRAPHS: dict[str, tuple[Callable[[], onnx.ModelProto], type[EdgewiseError], str]] = {
    "cycle": (
        lambda: model_of([node("Add", ["x", "b"], ["a"]), relu(["a"], ["b"]), relu(["b"])], inputs=X),
        ModelError, "the graph has a cycle or is out of order",
    ),
    "itself": (lambda: model_of([node("Add", ["x", "y"], ["y"])], inputs=X), ModelError, "has a cycle"),
    "read before it is written": (
        lambda: model_of([relu(["a"]), relu(["x"], ["a"])], inputs=X), ModelError, "reads 'a' before it is written",
    ),
    "read and never written": (lambda: model_of([relu(["a"])], inputs=X), ModelError, "reads 'a' which nothing writes"),
    "read in a subgraph": (subgraph_model, ModelError, "reads 'not_there' which nothing writes"),
    "written twice": (lambda: model_of([relu(), relu()], inputs=X), ModelError, "'y' is written twice"),
    "writes its input": (lambda: model_of([relu(["x"], ["x"])], inputs=X), ModelError, "'x' is written twice"),
    "an output twice": (
        lambda: model_of([relu()], inputs=X, outputs=["y", "y"]), ModelError, "output 'y' stands there twice",
    ),
    "an output of nothing": (
        lambda: model_of([relu()], inputs=X, outputs=["y", "z"]), ModelError, "nothing writes the output 'z'",
    ),
    "no nodes": (lambda: model_of([], inputs={"y": [1]}), ModelError, "no nodes"),
    "no inputs": (lambda: model_of([relu(["w"])], inputs={}, values={"w": floats(4)}), ModelError, "no inputs"),
    "opset 9": (lambda: model_of([relu()], inputs=X, opset=9), ModelError, "opset 9"),
    "custom domain": (
        lambda: model_of([helper.make_node("Mine", ["x"], ["y"], domain="my.ops")], inputs=X),
        ModelError, "operators of the domain 'my.ops'",
    ),
    "unknown operator": (lambda: model_of([node("Mine", ["x"], ["y"])], inputs=X), ModelError, "Mine"),
    "float16": (lambda: of_type(TensorProto.FLOAT16, weights=False), ModelError, "'x' is float16"),
    "float64": (lambda: of_type(TensorProto.DOUBLE, weights=False), ModelError, "'x' is float64"),
    "bfloat16": (lambda: of_type(TensorProto.BFLOAT16, weights=False), ModelError, "'x' is bfloat16"),
    "float16 inside": (lambda: of_type(TensorProto.FLOAT16, weights=True), ModelError, "weight 'w' is float16"),
    "text": (
        lambda: model_of([node("Identity", ["x"], ["y"])], inputs=X, kinds=dict.fromkeys("xy", TensorProto.STRING)),
        ModelError, "'x' is of type string",
    ),
    "already quantized": (
        lambda: model_of(
            [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
            inputs=X, values=GRID,
        ),
        ModelError, "already quantized (QuantizeLinear 'q')",
    ),
    "quantized with operators of the runtime": (
        lambda: model_of(
            [helper.make_node("QLinearSigmoid", ["x", "s", "z", "s", "z"], ["y"], domain="com.microsoft")],
            inputs=X, values=GRID,
        ),
        ModelError, "already quantized (QLinearSigmoid",
    ),
    "shapes that contradict": (
        lambda: model_of([node("MatMul", ["x", "w"], ["y"])], inputs=X, values={"w": floats(5, 4)}),
        ModelError, "Incompatible dimensions for matrix multiplication",
    ),
    "functions without end": (lambda: calls(3, recursive=True), HostileModelError, "calls itself"),
    "functions that explode": (lambda: calls(9), HostileModelError, f"{10**9} nodes"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    build, kind, said = GRAPHS[name]
    assert said in refused(written(tmp_path, build().SerializeToString()), kind).found


def set_dims(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dims

    return change


def cut_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:-4]


def typed_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0, 2.0])


def unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def input_dims(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for size in dims:
            shape.dim.add().dim_value = size

    return change


SIZES: dict[str, tuple[Change, type[EdgewiseError], str]] = {
    "raw data cut": (cut_data, ModelError, "holds 428 bytes for sizes [4, 3, 3, 3]"),
    "numbers missing": (typed_data, ModelError, "holds 2 numbers"),
    "little data for large sizes": (set_dims(40000, 50000), ModelError, "holds 432 bytes for sizes [40000, 50000]"),
    "absurd sizes": (set_dims(2**31, 2**31), HostileModelError, f"{2**62} elements"),
    "sizes that overflow to a small number": (set_dims(2**32, 2**32, 27), HostileModelError, "elements"),
    "absurd beside a zero": (set_dims(0, 2**62), HostileModelError, "elements"),
    "a negative size": (set_dims(-4, -27), HostileModelError, "negative size"),
    "an unknown type": (unknown_type, ModelError, "'w'"),
    "an absurd input": (input_dims(10**6, 10**6), HostileModelError, "input 'x'"),
    "a negative input": (input_dims(1, -3, 8, 8), HostileModelError, "negative size"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_do_not_hold(tmp_path: Path, name: str) -> None:
    change, kind, said = SIZES[name]
    model = conv_model()
    change(model)
    assert said in refused(written(tmp_path, model.SerializeToString()), kind).found


def field(number: int, data: bytes) -> bytes:
    """Return a message in a field of a protobuf message: its tag, its length as a varint, its bytes."""
    length, size = b"", len(data)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def with_nodes(nodes: bytes) -> bytes:
    """Return a model whose graph begins with serialised nodes."""
    model = model_of([relu()], inputs=X)
    graph = nodes + model.graph.SerializeToString()
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(7, graph)


def test_a_million_nodes(tmp_path: Path) -> None:
    one = onnx.GraphProto(node=[relu(["x"], ["t"])]).SerializeToString()
    error = refused(written(tmp_path, with_nodes(one * 1_000_000)), HostileModelError)
    assert "1000001 nodes" in error.found


def test_graphs_nested_too_deep_to_parse(tmp_path: Path) -> None:
    graph = onnx.GraphProto(node=[relu(["x"], ["i"])]).SerializeToString()
    branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
    for _ in range(500):
        graph = field(1, node("If", ["c"], ["i"]).SerializeToString() + field(5, branch + field(6, graph)))
    assert "not a readable ONNX file" in refused(written(tmp_path, with_nodes(graph))).found


def external(folder: Path, *, held: int = 432, **entries: Any) -> Path:
    """Write a model whose weight stands in weights.bin, with what `entries` says of it."""
    model = conv_model()
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": 0, "length": len(data), **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    (folder / "weights.bin").write_bytes(data[:held])
    return written(folder, model.SerializeToString())


OUTSIDE = (
    "../weights.bin",
    "a/../../weights.bin",
    "/etc/passwd",
    "..\\weights.bin",
    "C:\\weights.bin",
    "\\\\host\\x",
    "",
)


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(432))
    assert repr(location) in refused(external(folder, location=location), HostileModelError).found


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "secret.bin"
    outside.write_bytes(bytes(432))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(outside)
    assert "is a link" in refused(external(tmp_path / "model", location="link.bin"), HostileModelError).found
    (tmp_path / "model" / "inside.bin").symlink_to(tmp_path / "model" / "weights.bin")
    assert "is a link" in refused(external(tmp_path / "model", location="inside.bin"), HostileModelError).found
    (tmp_path / "model" / "folder").symlink_to(tmp_path)
    path = external(tmp_path / "model", location="folder/secret.bin")
    assert "is a link" in refused(path, HostileModelError).found


EXTERNAL: dict[str, tuple[dict[str, Any], type[EdgewiseError], str]] = {
    "not there": ({"location": "other.bin"}, ModelError, "'other.bin' not found"),
    "a folder": ({"location": "."}, ModelError, "not found"),
    "beyond the end": ({"offset": 400}, HostileModelError, "432 bytes from byte 400 of 'weights.bin', which has 432"),
    "file too short": ({"held": 100}, HostileModelError, "which has 100"),
    "no length, file too short": ({"held": 100, "length": None}, HostileModelError, "432 bytes from byte 0"),
    "a negative offset": ({"offset": -8}, HostileModelError, "from byte -8"),
    "a negative length": ({"length": -432}, HostileModelError, "-432 bytes"),
    "not a number": ({"offset": "zero"}, HostileModelError, "offset 'zero'"),
    "another length": ({"length": 100}, ModelError, "100 bytes of external data for sizes [4, 3, 3, 3]"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_that_do_not_hold(tmp_path: Path, name: str) -> None:
    entries, kind, said = EXTERNAL[name]
    assert said in refused(external(tmp_path, **entries), kind).found


def test_more_weights_than_a_file_can_hold(tmp_path: Path) -> None:
    # Sparse: the file takes no space, and is refused before it is read.
    model = conv_model()
    for index in range(3):
        size = 2**28 - 1
        tensor = TensorProto(
            name=f"big{index}", data_type=TensorProto.FLOAT, dims=[size], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="big.bin")
        model.graph.initializer.append(tensor)
    with (tmp_path / "big.bin").open("wb") as stream:
        stream.truncate(2**30)
    assert "3.0 GiB of weights" in refused(written(tmp_path, model.SerializeToString())).found
    large = tmp_path / "large.onnx"
    with large.open("wb") as stream:
        stream.truncate(2**31 + 1)
    assert "2.0 GiB" in refused(large).found


def test_a_small_file_that_folds_to_more_than_the_memory(tmp_path: Path) -> None:
    nodes = [
        node("ConstantOfShape", ["sizes"], ["big"]),
        node("ReduceSum", ["big"], ["sum"], keepdims=0),
        node("Add", ["x", "sum"], ["y"]),
    ]
    model = model_of(nodes, inputs=X, values={"sizes": np.array([2**17, 2**17])})
    error = refused(written(tmp_path, model.SerializeToString()), HostileModelError)
    assert f"{4 * 2**34}" in error.found


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    model = model_of([node("SequenceLength", ["x"], ["y"])], inputs=X, kinds={"y": TensorProto.INT64})
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.input[0].CopyFrom(helper.make_value_info("x", kind))
    assert "'x' is no tensor (sequence_type)" in refused(written(tmp_path, model.SerializeToString())).found


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model().SerializeToString())
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="--output"):
        import_model(path.name, base=tmp_path, inputs={}, work=tmp_path / "taken" / "work")
