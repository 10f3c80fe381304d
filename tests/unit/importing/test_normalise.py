from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.errors import ModelError
from edgewise.forge.graph import Graph
from edgewise.forge.importing import normalise as under_test
from edgewise.forge.importing.checks import read_checked
from edgewise.forge.importing.normalise import normalise
from tests.unit.importing.models import conv_model, floats, model_of, node
from tests.unit.importing.runs import Inputs, Shapes, kinds, normalised

IMAGE: Inputs = {"x": ["n", 3, 8, 8]}
ROW: Inputs = {"x": ["n", 6]}
KERNEL = floats(4, 3, 3, 3)


@pytest.mark.parametrize("opset", range(11, 23))
def test_opsets(tmp_path: Path, opset: int) -> None:
    done, notes = normalised(tmp_path, conv_model(opset=opset, ir=10))
    (version,) = [each.version for each in done.opset_import if not each.domain]
    assert version == max(17, opset)
    assert notes == ((f"opset {opset} converted to 17",) if opset < 17 else ())


@pytest.mark.parametrize("kind", ["Resize", "Upsample"])
def test_resizing_of_opset_11_and_before(tmp_path: Path, kind: str) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    if kind == "Upsample":  # gone with opset 10; opset 9 is refused before
        path = tmp_path / "model.onnx"
        model = model_of([node("Upsample", ["x", "s"], ["y"])], inputs=IMAGE, values={"s": scales}, opset=11)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="Upsample"):
            read_checked(path)
        return
    nodes = [node("Resize", ["x", "none", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric")]
    model = model_of(nodes, inputs=IMAGE, values={"s": scales, "none": np.zeros(0, np.float32)}, opset=11)
    done, _ = normalised(tmp_path, model)
    assert kinds(done) == {"Resize": 1}


def test_an_opset_that_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> onnx.ModelProto:
        raise RuntimeError("no adapter for\nMine")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    done, notes = normalised(tmp_path, conv_model(opset=13))
    assert kinds(done) == {"Conv": 1, "Relu": 1}
    assert notes == ("left at opset 13, for it cannot be converted to 17: no adapter for Mine",)
    with pytest.raises(ModelError, match="opset 11 cannot be converted to 17: no adapter for Mine"):
        normalised(tmp_path, conv_model(opset=11))


def test_names_and_order_depend_on_the_graph_alone(tmp_path: Path) -> None:
    model = conv_model()
    for position, each in enumerate(model.graph.node):
        each.name = f"node {position}"
    done, _ = normalised(tmp_path, model)
    assert [each.name for each in done.graph.node] == ["c", "y"]
    again, _ = normalised(tmp_path, conv_model())
    assert done.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_constants_and_initializers_that_are_inputs(tmp_path: Path) -> None:
    model = conv_model(ir=3)
    for each in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(each.name, TensorProto.FLOAT, list(each.dims)))
    del model.graph.node[:]
    two = helper.make_node("Constant", [], ["two"], value=onnx.numpy_helper.from_array(np.array(2, np.float32)))
    model.graph.node.extend(
        [two, node("Conv", ["x", "w", "b"], ["c"]), node("Mul", ["c", "two"], ["d"]), node("Relu", ["d"], ["y"])]
    )
    done, _ = normalised(tmp_path, model)
    assert kinds(done) == {"Conv": 1, "Relu": 1}
    assert [each.name for each in done.graph.input] == ["x"]


def branches(then: onnx.NodeProto, other: onnx.NodeProto) -> onnx.NodeProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    made = [helper.make_graph([each], "branch", [], [value]) for each in (then, other)]
    return node("If", ["flag"], ["z"], then_branch=made[0], else_branch=made[1])


def test_subgraphs_keep_what_they_read(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("ReduceMean", ["c"], ["m"], axes=[2, 3]),  # rewritten, after which what nothing reads is dropped
        branches(node("Mul", ["c", "k"], ["z"]), node("Relu", ["c"], ["z"])),
        node("Add", ["z", "m"], ["y"]),
    ]
    model = model_of(
        nodes,
        inputs={**IMAGE, "flag": [1]},
        values={"w": KERNEL, "k": floats(1)},
        kinds={"flag": TensorProto.BOOL},
    )
    done, _ = normalised(tmp_path, model)
    assert kinds(done) == {"Conv": 1, "GlobalAveragePool": 1, "If": 1, "Add": 1}
    inner = [child.name for each in done.graph.node for given in each.attribute for child in given.g.node]
    assert len(set(inner)) == 2


def test_a_loop(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Identity", ["more"], ["go"]), node("Mul", ["state", "k"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [node("Loop", ["times", "", "x"], ["y"], body=body)]
    done, _ = normalised(tmp_path, model_of(nodes, inputs=ROW, values={"times": np.array(3), "k": floats(6)}))
    assert kinds(done) == {"Loop": 1}


def test_functions_are_inlined(tmp_path: Path) -> None:
    model = model_of([helper.make_node("twice", ["x"], ["y"], domain="mine")], inputs=ROW)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    body = [node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    done, _ = normalised(tmp_path, model)
    assert kinds(done) == {"Add": 1}
    assert not done.functions


def test_the_batch_stays_dynamic_and_given_axes_become_static(tmp_path: Path) -> None:
    model = model_of([node("Relu", ["x"], ["y"])], inputs={"x": ["n", 3, "h", "w"]})
    done, notes = normalised(tmp_path, model, {"x": (0, 3, 16, 16)})
    assert Graph(done).shapes["x"] == (None, 3, 16, 16)
    assert Graph(done).shapes["y"] == (None, 3, 16, 16)
    assert notes == ("dynamic axes made static: x [0, 3, 16, 16]",)


WRONG_SHAPES: dict[str, tuple[Shapes, str, str]] = {
    "name": ({"xx": (1, 3, 8, 8)}, "names 'xx'", "did you mean 'x'"),
    "size": ({"x": (1, 4, 8, 8)}, r"x = \[1, 4, 8, 8\]", r"\[\?, 3, 8, 8\]"),
    "rank": ({"x": (3, 8, 8)}, r"x = \[3, 8, 8\]", r"\[\?, 3, 8, 8\]"),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_shapes_that_do_not_go_with_the_model(tmp_path: Path, name: str) -> None:
    given, found, right = WRONG_SHAPES[name]
    with pytest.raises(ModelError, match=found) as caught:
        normalised(tmp_path, conv_model(), given)
    assert caught.match(right)


def test_an_input_without_a_shape_needs_one(tmp_path: Path) -> None:
    model = model_of([node("Relu", ["x"], ["y"])], inputs=ROW)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="states no shape"):
        normalised(tmp_path, model)
    done, _ = normalised(tmp_path, model, {"x": (2, 6)})
    assert Graph(done).shapes["x"] == (2, 6)


def test_sizes_that_are_known_are_folded(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "order"], ["moved"]),
        node("Slice", ["moved", "last", "end"], ["picked"]),
        node("Cast", ["picked"], ["number"], to=TensorProto.FLOAT),
        node("Sqrt", ["number"], ["root"]),
        node("Div", ["x", "root"], ["y"]),
    ]
    values = {"order": np.array([0, 1]), "last": np.array([-1]), "end": np.array([2**63 - 1])}
    done, _ = normalised(tmp_path, model_of(nodes, inputs=ROW, values=values))
    assert kinds(done) == {"Div": 1}


def test_layer_norms_written_out_are_found(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[-1]),
        node("Sub", ["x", "m"], ["d"]),
        node("Pow", ["d", "two"], ["p"]),
        node("ReduceMean", ["p"], ["v"], axes=[-1]),
        node("Add", ["v", "e"], ["ve"]),
        node("Sqrt", ["ve"], ["s"]),
        node("Div", ["d", "s"], ["n"]),
        node("Mul", ["n", "g"], ["ng"]),
        node("Add", ["ng", "b"], ["y"]),
    ]
    values = {"two": np.array(2, np.float32), "e": np.array(1e-5, np.float32), "g": floats(6), "b": floats(6)}
    done, _ = normalised(tmp_path, model_of(nodes, inputs=ROW, values=values, opset=13))
    assert kinds(done) == {"LayerNormalization": 1}


def test_every_float_tensor_is_known(tmp_path: Path) -> None:
    done, _ = normalised(tmp_path, conv_model())
    assert Graph(done).float_tensors == {"x", "c", "y"}
    assert Graph(done).shapes["y"] == (None, 4, 8, 8)


def test_weights_too_large_for_inference_come_back(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])]
    done, _ = normalised(tmp_path, model_of(nodes, inputs=ROW, values={"w": floats(6, 500)}))
    assert Graph(done).shapes["y"] == (None, 500)
    (weight,) = done.graph.initializer
    assert len(weight.raw_data) == 12000
    assert not weight.external_data


def negate(model: onnx.ModelProto) -> int:
    """Spoil a graph as a wrong pass would."""
    for each in model.graph.initializer:
        if each.name == "b" and each.doc_string != "spoilt":
            each.CopyFrom(onnx.numpy_helper.from_array(1 - onnx.numpy_helper.to_array(each), "b"))
            each.doc_string = "spoilt"
            return 1
    return 0


def test_a_wrong_graph_is_never_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: tuple[Callable[[onnx.ModelProto], Any], ...] = (negate,)
    monkeypatch.setattr(under_test, "_STEPS", steps)
    with pytest.raises(ModelError, match="normalising changed what the model computes: the output 'y' differs"):
        normalised(tmp_path, conv_model())


def test_a_model_that_runs_on_nothing_made_up_is_said_to_be_untried(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], ["r"]), node("Relu", ["r"], ["y"])]
    model = model_of(nodes, inputs={"x": ["n"]}, values={"s": np.array([7919, -1])})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    checked, _ = read_checked(path)
    _, notes = normalise(checked, original=path, shapes={})
    assert notes == ("not compared with the model as it was: it ran on none of the inputs made up for it",)


def test_random_operators_are_no_mismatch(tmp_path: Path) -> None:
    # Two rows do not fit, so the user's model has drawn numbers once more when one row is tried.
    nodes = [
        node("RandomNormalLike", ["x"], ["r"]),
        node("Add", ["x", "r"], ["s"]),
        node("Reshape", ["s", "row"], ["y"]),
    ]
    model = model_of(nodes, inputs=ROW, values={"row": np.array([1, 6])})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    checked, _ = read_checked(path)
    done, _ = normalise(checked, original=path, shapes={})
    assert kinds(done)["RandomNormalLike"] == 1
