from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgewise.errors import ModelError
from edgewise.forge.graph import Graph, attribute
from edgewise.forge.importing import normalise as under_test
from edgewise.forge.importing.attention import fuse_attention
from edgewise.runtimes.onnxruntime_ import Level, OnnxRuntime, optimised
from tests.unit.importing.models import Array, attention_model, floats, model_of, node
from tests.unit.importing.runs import kinds, normalised

LEFT = {"MatMul": 4, "MultiHeadAttention": 1, "Add": 1, "Sum": 1, "LayerNormalization": 1}


def attention_of(model: onnx.ModelProto) -> onnx.NodeProto:
    (found,) = [each for each in model.graph.node if each.op_type == "MultiHeadAttention"]
    assert isinstance(found, onnx.NodeProto)
    return found


def run(model: onnx.ModelProto | Path, **feeds: Array) -> Array:
    given = model if isinstance(model, Path) else model.SerializeToString()
    return OnnxRuntime().load(given).run(feeds)[0]


@pytest.mark.parametrize("scale", ["scores", "both"])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_becomes_one_operator(tmp_path: Path, scale: str, bias: bool) -> None:  # noqa: FBT001
    done, notes = normalised(tmp_path, attention_model(scale=scale, bias=bias))
    assert kinds(done) == LEFT
    assert notes == ("attentions fused: 1",)
    fused = attention_of(done)
    assert attribute(fused, "num_heads") == 4
    assert attribute(fused, "scale") == pytest.approx(0.5)
    # Each of Q, K and V is still a product of its own, so that it can be quantized.
    graph = Graph(done)
    assert [graph.nodes[graph.producers[name]].op_type for name in fused.input[:3]] == ["MatMul"] * 3
    assert len(fused.input) == (4 if bias else 3)
    assert [each.domain for each in done.opset_import] == ["", "com.microsoft"]


def test_what_comes_behind_is_known_to_be_float(tmp_path: Path) -> None:
    done, _ = normalised(tmp_path, attention_model(mask="padding"))
    graph = Graph(done)
    written = {name for each in graph.nodes for name in each.output}
    assert written - graph.float_tensors == {"mask/int32"}
    assert graph.shapes["attended"][2] == 16


def test_a_mask_of_padding_is_read_from_the_tokens(tmp_path: Path) -> None:
    done, _ = normalised(tmp_path, attention_model(mask="padding"))
    assert kinds(done) == {**LEFT, "Cast": 1}
    assert attention_of(done).input[4] == "mask/int32"
    # Padding on the left and in between too: it is a mask, not a length.
    x, mask = floats(2, 7, 16), np.array([[0, 0, 1, 1, 1, 0, 1], [1, 0, 1, 0, 1, 0, 0]])
    np.testing.assert_allclose(run(done, x=x, mask=mask), run(tmp_path / "model.onnx", x=x, mask=mask), atol=1e-5)


def test_a_window_that_a_short_text_does_not_show_is_kept(tmp_path: Path) -> None:
    done, notes = normalised(tmp_path, attention_model(mask="window"))
    assert notes == ("attentions fused: 1",)
    assert not attention_of(done).input[4]
    x, mask = floats(1, 120, 16), np.ones((1, 120), np.int64)
    np.testing.assert_allclose(run(done, x=x, mask=mask), run(tmp_path / "model.onnx", x=x, mask=mask), atol=1e-5)


@pytest.mark.parametrize("mask", ["where", "heads"])
def test_other_masks_are_added_to_the_scores(tmp_path: Path, mask: str) -> None:
    done, _ = normalised(tmp_path, attention_model(mask=mask, tokens=8))
    assert attention_of(done).input[5]
    assert set(kinds(done)) <= {*LEFT, "Where", "Expand", "Concat"}


def test_attention_weights_that_are_an_output_stay(tmp_path: Path) -> None:
    model = attention_model()
    model.graph.output.append(onnx.helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    done, notes = normalised(tmp_path, model)
    assert kinds(done)["Softmax"] == 1
    assert not notes


def test_heads_that_are_cut_another_way_stay(tmp_path: Path) -> None:
    model = attention_model()
    for each in model.graph.initializer:
        if each.name == "cut":  # twice the tokens, of half the size
            each.CopyFrom(onnx.numpy_helper.from_array(np.array([0, -1, 4, 2]), "cut"))
        if each.name == "merged":
            each.CopyFrom(onnx.numpy_helper.from_array(np.array([0, -1, 16]), "merged"))
    done, notes = normalised(tmp_path, model)
    assert kinds(done)["Softmax"] == 1
    assert not notes


def test_a_wrong_fusion_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> int:
        fused = fuse_attention(model, shapes)
        (scale,) = [each for each in attention_of(model).attribute if each.name == "scale"]
        scale.f *= 1.5
        return fused

    monkeypatch.setattr(under_test, "fuse_attention", wrong)
    done, notes = normalised(tmp_path, attention_model())
    assert kinds(done)["Softmax"] == 1
    assert notes[0].startswith("attention left as it was: fused, the output 'y' differs")


def gelu(order: str, *, biased: bool) -> onnx.ModelProto:
    source = "s" if biased else "x"
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "b"], ["s"])] if biased else []
    nodes += [
        node("Div", [source, "root"], ["d"]) if order == "A" else node("Mul", ["inverse", source], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["a"]),
    ]
    nodes += {
        "A": [node("Mul", [source, "a"], ["m"]), node("Mul", ["m", "half"], ["y"])],
        "B": [node("Mul", ["half", "a"], ["m"]), node("Mul", [source, "m"], ["y"])],
        "C": [node("Mul", [source, "half"], ["m"]), node("Mul", ["m", "a"], ["y"])],
    }[order]
    numbers = {"root": np.sqrt(2), "inverse": np.sqrt(0.5), "one": 1, "half": 0.5}
    values = {name: np.array(value, np.float32) for name, value in numbers.items()}
    return model_of(nodes, inputs={"x": ["n", 5, 6]}, values={**values, "w": floats(6, 7), "b": floats(7)})


@pytest.mark.parametrize("order", ["A", "B", "C"])
@pytest.mark.parametrize("biased", [False, True])
def test_gelus_written_out_are_found(tmp_path: Path, order: str, biased: bool) -> None:  # noqa: FBT001
    done, notes = normalised(tmp_path, gelu(order, biased=biased))
    assert kinds(done) == ({"MatMul": 1, "BiasGelu": 1} if biased else {"Gelu": 1})
    assert notes == ("Gelus fused: 1",)


def test_what_is_only_like_a_gelu_stays(tmp_path: Path) -> None:
    model = gelu("A", biased=False)
    for each in model.graph.initializer:
        if each.name == "half":
            each.CopyFrom(onnx.numpy_helper.from_array(np.array(0.6, np.float32), "half"))
    done, notes = normalised(tmp_path, model)
    assert kinds(done)["Erf"] == 1
    assert not notes


def test_the_session_does_not_fuse_residual_sums(tmp_path: Path) -> None:
    done, _ = normalised(tmp_path, attention_model(tokens=8))
    session = onnx.load_from_string(optimised(done.SerializeToString(), level=Level.ALL))
    assert "SkipLayerNormalization" not in kinds(session)
    for each in done.graph.node:
        each.op_type = "Add" if each.op_type == "Sum" else each.op_type
    spoilt = onnx.load_from_string(optimised(done.SerializeToString(), level=Level.ALL))
    assert "SkipLayerNormalization" in kinds(spoilt)


def test_tokens_are_ones_and_zeros_when_made_up(tmp_path: Path) -> None:
    nodes = [node("Gather", ["table", "x"], ["y"])]
    done, notes = normalised(
        tmp_path,
        model_of(nodes, inputs={"x": ["b", "t"]}, values={"table": floats(2, 3)}, kinds={"x": TensorProto.INT64}),
    )
    assert not notes
    assert kinds(done) == {"Gather": 1}


def test_a_model_that_does_not_run_is_refused_with_the_words_of_the_runtime(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], ["y"])]
    with pytest.raises(ModelError, match="ONNX Runtime could not load the model"):
        normalised(tmp_path, model_of(nodes, inputs={"x": [5]}, values={"s": np.array([7.0], np.float32)}))
