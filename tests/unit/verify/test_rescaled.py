"""Channels that were rescaled between layers are one note, not a changed weight in every layer; faults still show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.contracts.verification import Grade
from edgewise.forge.equalise import channel_classes, scaled
from edgewise.forge.graph import Graph
from edgewise.forge.progress import Silent
from edgewise.forge.regions import regions_of
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.verify.match import load
from edgewise.forge.verify.rescaled import rescaled
from edgewise.forge.verify.where import where
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.verify.subjects import names, subject, troubles
from tests.unit.verify.variants import broken, calibration, edit, quantized


@pytest.fixture(scope="module")
def equalised(normalised: Path) -> Path:
    """The int8 variant of the demo's model with factors of 0.25 to 4 on every channel that can be scaled."""
    graph = load(normalised)
    draw = np.random.default_rng(0)
    factors = []
    for each in channel_classes(graph, regions_of(graph)):
        raw = np.exp(draw.uniform(-1.4, 1.4, len(graph.constants[each.writers[0].weight or ""])))
        factors.append((each, np.asarray(raw / np.exp(np.log(raw).mean()), np.float32)))
    assert factors
    folder = normalised.parent / "equalised"
    folder.mkdir()
    onnx.save(scaled(graph, factors), str(folder / "ready.onnx"))
    return quantized(calibration(), folder, "variant")


def test_an_equalised_variant_without_its_run_is_one_note(equalised: Path, normalised: Path) -> None:
    it = subject(equalised, normalised)
    section = integrity(it, Silent())
    (note,) = [each for each in section.findings if each.name == "integrity.rescaled"]
    assert note.grade is Grade.NOTED
    assert troubles(section) == []
    assert troubles(where(it, Silent())) == []


def test_a_fault_in_an_equalised_variant_is_named(equalised: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        head = next(each for each in model.graph.initializer if each.name == "logits/weight_t_quantized")

        def row(codes: np.ndarray) -> np.ndarray:
            rows = codes.T
            rows[4] = -rows[4]
            return codes

        edit(model, head.name, row)

    it = subject(broken(equalised, "row", change), normalised)
    assert ("integrity.weights", "logits") in names(integrity(it, Silent()))


def test_fp32_rescaled_alike_computes_the_same(equalised: Path, normalised: Path) -> None:
    found = rescaled(load(normalised), load(equalised))
    assert found is not None
    feeds = {"image": calibration(100)[:1]}
    mine = OnnxRuntime().load(found[0].model.SerializeToString()).run(feeds)[0]
    np.testing.assert_allclose(mine, OnnxRuntime().load(normalised).run(feeds)[0], rtol=1e-3, atol=1e-3)


def test_weights_that_are_fp32s_rounded_are_not_rescaled(normalised: Path, tmp_path: Path) -> None:
    plain = load(quantized(calibration(), tmp_path, "plain"))
    assert rescaled(load(normalised), plain) is None

    def double(model: onnx.ModelProto) -> None:
        for each in list(model.graph.initializer):
            if each.name.endswith("weight_scale") or ("Conv" in each.name and each.name.endswith("_scale")):
                edit(model, each.name, lambda scale: np.asarray(scale * 2))

    wrong = Graph(plain.model)
    double(wrong.model)
    assert rescaled(load(normalised), Graph(wrong.model)) is None
