"""Attacks: the surrogate is the model, the ball holds, and coarse variants are parted from fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.verification import Depth, Grade, Section
from edgewise.forge.progress import Silent
from edgewise.forge.tasks.base import Array
from edgewise.forge.verify.adversarial import adversarial, ball_of
from edgewise.forge.verify.adversarial_attacks import Ball, cross_entropy, difference, fgsm, pgd, square
from edgewise.forge.verify.adversarial_surrogate import Surrogate, UnsupportedOperatorError
from edgewise.forge.verify.corruptions.modality import View, view_of
from edgewise.runtimes import runtime
from tests.unit.verify.paired_subjects import coarse, subject_of

DRAW = np.random.default_rng(8)
BALL = Ball(radius=np.array(0.1), low=np.array(0.0), high=np.array(1.0))


def first(data: Path) -> tuple[View, Array, int]:
    subject = subject_of(data, data / "model.onnx", samples=20)
    view = view_of(subject)
    assert not isinstance(view, str)
    sample = subject.test[0]
    return view, sample.feeds[view.name], int(sample.target)


def shares(section: Section, name: str) -> dict[str, tuple[float, float]]:
    return {each.subject: (each.value or 0.0, each.reference or 0.0) for each in section.findings if each.name == name}


def test_the_surrogate_computes_what_the_runtime_does(data: Path) -> None:
    view, x, _ = first(data)
    session = runtime(RuntimeName.ONNXRUNTIME).load(data / "model.onnx")
    mine = Surrogate(data / "model.onnx").run(view.name, x)
    np.testing.assert_allclose(mine, session.run({view.name: x})[0].reshape(1, -1), atol=1e-3)


def test_the_surrogate_runs_a_quantized_variant(int8: Path, data: Path) -> None:
    """Its fake quantization is that of the runtime, up to one step."""
    view, x, _ = first(data)
    its = runtime(RuntimeName.ONNXRUNTIME).load(int8).run({view.name: x})[0].reshape(-1)
    mine = Surrogate(int8).run(view.name, x).reshape(-1)
    assert np.abs(mine - its).max() < 0.02 * np.ptp(its)


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mish", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3])],
        [helper.make_tensor_value_info("y", 1, [1, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOperatorError, match="Mish"):
        Surrogate(tmp_path / "m.onnx")


def test_rounding_passes_gradients_inside_its_range_only(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 2])],
        [helper.make_tensor_value_info("y", 1, [1, 2])],
        [numpy_helper.from_array(np.array(0.1, np.float32), "s"), numpy_helper.from_array(np.array(0, np.uint8), "z")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    model = Surrogate(tmp_path / "m.onnx")
    leaf = model.torch.tensor([[0.234, 99.0]], requires_grad=True)
    out = model("x", leaf)
    np.testing.assert_allclose(out.detach().numpy(), [[0.2, 25.5]], rtol=1e-5)
    out.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), [[1.0, 0.0]], atol=1e-6)


def test_no_attack_leaves_the_ball_or_the_range() -> None:
    x = DRAW.random((1, 3, 12, 12)).astype(np.float32)
    made = [
        fgsm(x, lambda at: DRAW.normal(size=at.shape), BALL),
        pgd(x, lambda at: DRAW.normal(size=at.shape), BALL, generator=DRAW),
        square(x, lambda _: 1.0, BALL, queries=40, rows=2, generator=DRAW),
        square(x, lambda at: float(at.sum()), BALL, queries=40, rows=2, generator=DRAW),
    ]
    for each in made:
        assert each.dtype == x.dtype
        assert np.abs(each - x).max() <= 0.1 + 1e-6
        assert each.min() >= 0
        assert each.max() <= 1
        assert (each != x).any()


def test_a_stronger_attack_raises_the_loss_more(data: Path) -> None:
    view, x, label = first(data)
    model, ball = Surrogate(data / "model.onnx"), ball_of(view, 8, x)
    gradient = cross_entropy(model, view.name, label)

    def loss(at: Array) -> float:
        return -float(model.log_probabilities(view.name, model.torch.from_numpy(at))[0, label])

    once = loss(fgsm(x, gradient, ball))
    often = loss(pgd(x, gradient, ball, generator=np.random.default_rng(0)))
    assert loss(x) < once <= often + 1e-3


def test_the_square_attack_lowers_the_margin_it_is_given() -> None:
    weight = DRAW.normal(size=(1, 1, 8, 8))
    x = DRAW.random((1, 1, 8, 8))

    def margin(at: Array) -> float:
        return float((at * weight).sum()) + 100

    made = square(x, margin, BALL, queries=60, rows=2, generator=np.random.default_rng(0))
    stripes = square(x, margin, BALL, queries=1, rows=2, generator=np.random.default_rng(0))
    assert margin(made) < margin(stripes)


def test_the_differential_gradient_of_a_model_and_itself_is_nothing(data: Path) -> None:
    view, x, label = first(data)
    model = Surrogate(data / "model.onnx")
    assert np.abs(difference(model, model, view.name, label)(x)).max() < 1e-6


def test_fp32_against_itself_loses_nothing(data: Path) -> None:
    section = adversarial(subject_of(data, data / "model.onnx", samples=30, depth=Depth.FULL, seconds=0.1), Silent())
    judged = [each for each in section.findings if each.grade is not Grade.NOTED]
    assert judged
    assert {each.grade for each in judged} == {Grade.PASS}
    assert all(value == 0 for value, _ in shares(section, "adversarial.diva").values())


def test_the_differential_attack_parts_a_coarse_variant_where_pgd_does_not(data: Path, tmp_path: Path) -> None:
    variant = coarse(data / "model.onnx", tmp_path, bits=5)
    section = adversarial(subject_of(data, variant, samples=80, depth=Depth.FULL, seconds=2.0), Silent())
    found = shares(section, "adversarial.diva")
    assert sum(share for share, _ in found.values()) > sum(by_pgd for _, by_pgd in found.values())


def test_the_same_seed_gives_the_same_section(data: Path, tmp_path: Path) -> None:
    variant = coarse(data / "model.onnx", tmp_path, bits=5)
    made = [
        adversarial(subject_of(data, variant, samples=12, depth=Depth.FULL, seconds=0.01), Silent()) for _ in range(2)
    ]
    assert made[0] == made[1]
