from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgewise.errors import ConfigError, EdgewiseError, HostileModelError, ModelError, WorkerError
from edgewise.forge.graph import Graph
from edgewise.forge.importing.locate import Module, locate
from edgewise.forge.importing.messages import Refusal
from edgewise.forge.importing.sandbox import Imported, import_model
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.importing.models import conv_model, floats


def imported(path: Path, **inputs: tuple[int, ...]) -> Imported:
    return import_model(path.name, base=path.parent, inputs=inputs, work=path.parent / "work")


def written(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(folder: Path, model: onnx.ModelProto, *, files: int) -> Path:
    """Write a model with its weights in one file, at offsets, or in a file for each."""
    for index, tensor in enumerate(model.graph.initializer):
        name = "weights.bin" if files == 1 else f"weights{index}.bin"
        with (folder / name).open("ab") as stream:
            entries = {"location": name, "offset": stream.tell(), "length": len(tensor.raw_data)}
            stream.write(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    return written(folder, model)


def test_what_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model(opset=11))
    found = imported(path)
    assert found.original == path
    assert found.normalised == tmp_path / "work" / "normalised.onnx"
    assert found.notes == ("opset 11 converted to 17",)
    assert len(found.digest) == 64
    assert [each.name for each in found.normalised.parent.iterdir()] == ["normalised.onnx"]
    assert Graph(onnx.load(found.normalised)).shapes["x"] == (None, 3, 8, 8)


def test_the_same_model_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    first = imported(written(tmp_path, conv_model()))
    data = first.normalised.read_bytes()
    again = imported(written(tmp_path, conv_model()))
    assert (again.digest, again.normalised.read_bytes()) == (first.digest, data)
    model = conv_model()
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(floats(4, seed=5), "b"))
    assert imported(written(tmp_path, model)).digest != first.digest
    assert imported(written(tmp_path, conv_model()), x=(1, 3, 8, 8)).digest != first.digest


@pytest.mark.parametrize("files", [1, 2])
def test_external_data_become_one_file(tmp_path: Path, files: int) -> None:
    found = imported(external(tmp_path, conv_model(), files=files))
    assert found.original == tmp_path / "work" / "original.onnx"
    for each in tmp_path.glob("*.bin"):
        each.unlink()
    x = floats(2, 3, 8, 8)
    before, after = (OnnxRuntime().load(each).run({"x": x})[0] for each in (found.original, found.normalised))
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert found.digest == imported(written(tmp_path, conv_model())).digest


def test_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    model = conv_model()
    for each in model.graph.node:
        each.name = "same"
    found = imported(written(tmp_path, model))
    # ONNX Runtime refuses the user's own file.
    assert found.original == tmp_path / "work" / "original.onnx"
    OnnxRuntime().load(found.original)


def test_what_was_imported_before_stays_when_the_next_one_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model())
    data = imported(path).normalised.read_bytes()
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError):
        imported(path)
    assert [each.name for each in (tmp_path / "work").iterdir()] == ["normalised.onnx"]
    assert (tmp_path / "work" / "normalised.onnx").read_bytes() == data


def test_a_path_may_be_absolute_and_have_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    path = written(folder, conv_model())
    found = import_model(str(path), base=Path("/"), inputs={}, work=tmp_path / "work here")
    assert found.original == path


def test_the_work_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, conv_model())
    monkeypatch.chdir(tmp_path)
    found = import_model("model.onnx", base=Path(), inputs={}, work=Path("work"))
    assert found.normalised.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model())
    tmp_path.chmod(0o500)
    with pytest.raises(EdgewiseError, match="--output"):
        imported(path)


@pytest.mark.parametrize(
    ("text", "module", "function"), [("net:build", "net", "build"), ("pkg.net:Net.small", "pkg.net", "Net.small")]
)
def test_a_module_is_told_by_its_colon(tmp_path: Path, text: str, module: str, function: str) -> None:
    assert locate(text, base=tmp_path) == Module(module, function)


def test_a_file_goes_before_a_module(tmp_path: Path) -> None:
    (tmp_path / "net:build").touch()
    assert locate("net:build", base=tmp_path) == tmp_path / "net:build"


@pytest.mark.parametrize("text", ["net.py:build", "net:", ":build", "net:build()", "", "\0", "x" * 5000, "1net:build"])
def test_what_is_neither(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        locate(text, base=tmp_path)
    assert caught.value.next_step


@pytest.mark.parametrize("kind", [ModelError, HostileModelError, ConfigError])
def test_an_error_travels_whole(kind: type[EdgewiseError]) -> None:
    error = Refusal.of(kind("found", required="required", next_step="next")).error()
    assert type(error) is kind
    assert (error.found, error.required, error.next_step) == ("found", "required", "next")


@pytest.mark.parametrize("kind", ["SystemExit", "annotations", "Nothing"])
def test_only_errors_of_this_package_are_built_from_their_names(kind: str) -> None:
    assert type(Refusal(kind=kind, found="found").error()) is WorkerError
