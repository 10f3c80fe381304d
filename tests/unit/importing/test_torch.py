from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgewise.errors import MissingExtraError, ModelError
from edgewise.forge.graph import Graph
from edgewise.forge.importing import torch_child, torch_module
from edgewise.forge.importing.messages import Answer, Question
from edgewise.forge.importing.sandbox import Imported, import_model
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.importing import nets
from tests.unit.importing.models import floats
from tests.unit.importing.runs import Shapes

ROOT = Path(__file__).parents[3]
NETS = "tests.unit.importing.nets"


def imported(name: str, folder: Path, inputs: Shapes, *, base: Path = ROOT) -> Imported:
    return import_model(name if ":" in name else f"{NETS}:{name}", base=base, inputs=inputs, work=folder / "work")


def kinds(found: Imported) -> set[str]:
    return {each.op_type for each in onnx.load(found.normalised).graph.node}


@pytest.mark.parametrize("name", ["small", "Small", "instance"])
def test_a_network_computes_the_same_in_onnx(tmp_path: Path, name: str) -> None:
    found = imported(name, tmp_path, {"x": (1, 3, 16, 16)})
    assert sorted(each.name for each in (tmp_path / "work").iterdir()) == ["normalised.onnx", "original.onnx"]
    assert "BatchNormalization" not in kinds(found)
    assert Graph(onnx.load(found.normalised)).shapes["x"] == (None, 3, 16, 16)
    x = floats(4, 3, 16, 16, scale=1.0)
    with torch.no_grad():
        expected = nets.Small().eval()(torch.from_numpy(x)).numpy()
    for path in (found.original, found.normalised):
        (computed,) = OnnxRuntime().load(path).run({"x": x})
        np.testing.assert_allclose(computed, expected, atol=1e-5)


def test_token_ids_and_named_outputs(tmp_path: Path) -> None:
    found = imported("Words", tmp_path, {"ids": (1, 6), "mask": (1, 6)})
    session = OnnxRuntime().load(found.normalised)
    assert [(each.name, each.dtype, each.shape) for each in session.inputs] == [
        ("ids", "int64", (None, 6)),
        ("mask", "int64", (None, 6)),
    ]
    assert [each.name for each in session.outputs] == ["hidden", "pooled"]


def test_shapes_in_another_order_and_by_other_names(tmp_path: Path) -> None:
    assert imported("Words", tmp_path, {"mask": (1, 6), "ids": (1, 6)}).digest
    found = imported("Small", tmp_path, {"image": (1, 3, 16, 16)})
    assert [each.name for each in OnnxRuntime().load(found.original).inputs] == ["image"]


def test_a_batch_that_is_part_of_the_module_stays(tmp_path: Path) -> None:
    found = imported("OneOnly", tmp_path, {"x": (1, 3, 4)})
    assert Graph(onnx.load(found.normalised)).shapes["x"] == (1, 3, 4)
    assert found.notes == ("the batch stays as given, for the module does not run with another one",)


def test_a_package_beside_the_configuration(tmp_path: Path) -> None:
    package = tmp_path / "my_nets"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tiny.py").write_text(
        "from torch import nn\nfrom my_nets import tiny\ndef build(): return nn.Linear(4, 2)\n"
    )
    assert imported("my_nets.tiny:build", tmp_path, {"input": (1, 4)}, base=tmp_path).digest


def at_once(_: Path, question: Question, **_options: object) -> Answer:
    """Answer as the child does, in this process: to load torch takes a second, and to refuse takes none."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        answer = torch_child.answer(question)
    torch.backends.mha.set_fastpath_enabled(fast)
    if answer.refusal is None:
        raise AssertionError(question.model)
    raise answer.refusal.error()


REFUSED: dict[str, tuple[str, Shapes, str]] = {
    "no shapes": ("small", {}, "no shapes of its inputs"),
    "no module": ("tests.unit.importing.nots:small", {"x": (1,)}, "no module named 'tests.unit.importing.nots'"),
    "no package": ("nowhere.nets:small", {"x": (1,)}, "no module named 'nowhere'"),
    "no attribute": ("smal", {"x": (1,)}, "has no 'smal'"),
    "a number": ("NUMBER", {"x": (1,)}, "of type int, which cannot be called"),
    "a state": ("state", {"x": (1,)}, "returned a OrderedDict"),
    "fails": ("fails", {"x": (1,)}, "calling it failed: FileNotFoundError: is not there"),
    "crashes": ("crashes", {"x": (1,)}, "exporting it crashed (SIGSEGV)"),
    "wrong size": ("Picky", {"x": (1, 5)}, "forward failed: RuntimeError"),
    "an input missing": ("Words", {"ids": (1, 6)}, "shapes of ids, while forward takes ids, mask"),
    "an input too many": ("Small", {"x": (1, 3, 16, 16), "y": (1,)}, "shapes of x, y, while forward takes x"),
    "not in ONNX": ("NotForOnnx", {"x": (1, 3, 3)}, "the export to ONNX failed"),
    "goes by values": ("Branching", {"x": (1, 3)}, "its output 'output' is another one"),
    "half": ("half", {"x": (1, 3, 16, 16)}, "forward failed: RuntimeError"),
}


ALONE = {"crashes", "exits", "syntax", "goes by values"}
"""In processes of their own: those that end them, and two that refuse, one before and one after the export."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, inputs, said = REFUSED[name]
    if name not in ALONE:
        monkeypatch.setattr(torch_module, "ask", at_once)
    with pytest.raises(ModelError) as caught:
        imported(function, tmp_path, inputs)
    assert said in caught.value.found
    assert caught.value.required
    assert caught.value.next_step
    assert not (tmp_path / "work").exists()


BROKEN = {
    "syntax": ("def build(:\n", "importing broken failed: SyntaxError"),
    "needs": ("import no_such_library_here\n", "it needs the module 'no_such_library_here'"),
    "raises": ("raise RuntimeError('no licence')\n", "importing broken failed: RuntimeError: no licence"),
    "exits": ("import sys; sys.exit(3)\n", "exporting it ended with exit code 3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_does_not_import(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = BROKEN[name]
    if name not in ALONE:
        monkeypatch.setattr(torch_module, "ask", at_once)
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(ModelError) as caught:
        imported("broken:build", tmp_path, {"x": (1,)}, base=tmp_path)
    assert said in caught.value.found


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_module, "installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"edgewise\[train\]"):
        imported("small", tmp_path, {"x": (1, 3, 16, 16)})
