from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.contracts.recipe import Format, Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Grade
from edgewise.demo import demo_folder
from edgewise.forge.calibrate import calibrate
from edgewise.forge.data.open import open_dataset
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.lower.lowering import lower
from edgewise.forge.progress import Silent
from edgewise.forge.regions import regions_of
from edgewise.forge.search.options import Style, uniform
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.weights import Corrections, parameters_for
from edgewise.runtimes import runtime
from tests.unit.verify.subjects import subject
from tests.unit.verify.variants import broken, edit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Recipe]:
    """The demo model in int8 by its recipe: the variant, the imported model, the recipe."""
    work = tmp_path_factory.mktemp("made")
    normalised = import_model(str(demo_folder() / "model.onnx"), base=work, inputs={}, work=work).normalised
    graph = Graph(onnx.load(str(normalised)))
    regions = regions_of(graph)
    execute = runtime(RuntimeName.ONNXRUNTIME)
    inputs = execute.load(normalised).inputs
    pool = open_dataset(demo_folder() / "calibrate.npz", config=TaskConfig(calibrate="calibrate.npz"), inputs=inputs)
    calibration = calibrate(graph, regions, pool, range(8), runtime=execute, threads=1)
    offers = {each.name: (Format.INT8_STATIC,) for each in regions if Format.INT8_STATIC in each.formats}
    recipe = uniform(regions, offers, Format.INT8_STATIC, Style(), name="int8")
    parameters = parameters_for(graph, regions, recipe, calibration, Corrections())
    variant = work / "variant.onnx"
    onnx.save(lower(graph, regions, recipe, parameters), str(variant))
    return variant, normalised, recipe


def test_a_variant_is_built_again_from_its_recipe(made: tuple[Path, Path, Recipe]) -> None:
    variant, normalised, recipe = made
    findings = integrity(subject(variant, normalised, recipe=recipe), Silent()).findings
    assert {each.grade for each in findings} == {Grade.PASS}
    assert "integrity.recipe" in {each.name for each in findings}


def test_one_bit_is_named_with_what_the_recipe_makes(made: tuple[Path, Path, Recipe]) -> None:
    variant, normalised, recipe = made
    name = "logits/weight_q"

    def change(model: onnx.ModelProto) -> None:
        def bit(codes: np.ndarray) -> np.ndarray:
            codes[5, 3] ^= 1
            return codes

        edit(model, name, bit)

    tampered = broken(variant, "bit", change)
    findings = integrity(subject(tampered, normalised, recipe=recipe), Silent()).findings
    failed = [each for each in findings if each.name == "integrity.recipe"]
    assert [(each.grade, each.subject, each.value) for each in failed] == [(Grade.FAIL, name, 1)]
    assert f"{name}[5][3] is " in failed[0].detail
