from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from edgewise.contracts.recipe import Format, Recipe, Rounding
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Grade
from edgewise.demo import demo_folder
from edgewise.forge.calibrate import calibrate
from edgewise.forge.data.open import open_dataset
from edgewise.forge.graph import Graph
from edgewise.forge.kept import Kept, kept_of, read_kept, write_kept
from edgewise.forge.lower.lowering import lower
from edgewise.forge.parameters import WeightValues
from edgewise.forge.progress import Silent
from edgewise.forge.regions import regions_of
from edgewise.forge.search.options import Style, uniform
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.weights import Corrections, Known, parameters_for
from edgewise.runtimes import runtime
from tests.unit.verify.subjects import subject
from tests.unit.verify.variants import broken, edit


@pytest.fixture(scope="module")
def made(normalised: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Recipe]:
    """The demo model in int8 by its recipe: the variant, the imported model, the recipe."""
    work = tmp_path_factory.mktemp("made")
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


HEAD = "logits"


@pytest.fixture(scope="module")
def learned(normalised: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Recipe, Path]:
    """A variant whose rounding, biases and smoothing data chose, with what its run keeps of that."""
    work = tmp_path_factory.mktemp("learned")
    graph = Graph(onnx.load(str(normalised)))
    regions = regions_of(graph)
    execute = runtime(RuntimeName.ONNXRUNTIME)
    inputs = execute.load(normalised).inputs
    pool = open_dataset(demo_folder() / "calibrate.npz", config=TaskConfig(calibrate="calibrate.npz"), inputs=inputs)
    calibration = calibrate(graph, regions, pool, range(8), runtime=execute, threads=1)
    offers = {each.name: (Format.INT8_STATIC,) for each in regions if Format.INT8_STATIC in each.formats}
    offers[HEAD] = (Format.INT8_DYNAMIC,)
    style = Style(rounding=Rounding.GPTQ, bias_correction=True)
    recipe = uniform(regions, offers, Format.INT8_STATIC, style, name="learned")
    last = uniform(regions, offers, Format.INT8_DYNAMIC, Style(smooth={HEAD: 0.5}), name="")
    recipe = msgspec.structs.replace(recipe, regions=(*recipe.regions, *last.regions))
    draw, known = np.random.default_rng(0), Known()
    plain = parameters_for(graph, regions, recipe, calibration, Corrections(), known).weights
    width = plain[HEAD].values.shape[1]
    corrections = Corrections(
        rounded={
            name: WeightValues(
                values=np.asarray(np.clip(each.values + draw.integers(-1, 2, each.values.shape), -127, 127), np.int8),
                scale=each.scale,
            )
            for name, each in plain.items()
        },
        rounded_bias_shift={
            name: np.asarray(draw.normal(scale=0.01, size=len(each.values)), np.float32) for name, each in plain.items()
        },
        bias_shift={name: np.full(len(each.values), 9, np.float32) for name, each in plain.items()},
        smooth={HEAD: np.asarray(draw.uniform(0.5, 2, width), np.float32)},
    )
    variant, kept = work / "variant.onnx", work / "kept.npz"
    onnx.save(
        lower(graph, regions, recipe, parameters_for(graph, regions, recipe, calibration, corrections, known)),
        str(variant),
    )
    write_kept(kept, kept_of(tuple(calibration.histograms), known.ranges, corrections, recipe))
    return variant, normalised, recipe, kept


def failures(variant: Path, learned: tuple[Path, Path, Recipe, Path], kept: Kept | None) -> list[tuple[str, Any]]:
    it = subject(variant, learned[1], recipe=learned[2], kept=kept)
    return [
        (each.subject, each.value)
        for each in integrity(it, Silent()).findings
        if each.name == "integrity.recipe" and each.grade is Grade.FAIL
    ]


def test_what_data_chose_is_built_again_from_what_the_run_kept(learned: tuple[Path, Path, Recipe, Path]) -> None:
    variant, normalised, recipe, path = learned
    kept = read_kept(path)
    assert kept is not None
    assert not kept.corrections.bias_shift  # of other rounding: no part of this recipe
    found = integrity(subject(variant, normalised, recipe=recipe, kept=kept), Silent()).findings
    assert [each.grade for each in found if each.name == "integrity.recipe"] == [Grade.PASS]
    assert not [each for each in found if each.name == "integrity.rounding"]
    assert [each.grade for each in found if each.name == "integrity.weights"] == [Grade.PASS]  # the smoothed layer too
    unkept = integrity(subject(variant, normalised, recipe=recipe), Silent()).findings
    assert [each.grade for each in unkept if each.name == "integrity.rounding"] == [Grade.NOTED]


@pytest.mark.parametrize("ending", ["weight_q", "weight_scale", "bias_q", "image/scale", "image/zero_point", "smooth"])
def test_a_changed_bit_of_any_kind_of_constant_is_named(ending: str, learned: tuple[Path, Path, Recipe, Path]) -> None:
    model = onnx.load(str(learned[0]))
    names = [each.name for each in model.graph.initializer if ending in each.name]
    assert names, [each.name for each in model.graph.initializer]

    def change(model: onnx.ModelProto) -> None:
        def bit(values: np.ndarray) -> np.ndarray:
            raw = bytearray(values.tobytes())
            raw[0] ^= 1
            return np.frombuffer(bytes(raw), values.dtype).reshape(values.shape)

        edit(model, names[0], bit)

    tampered = broken(learned[0], f"bit-{ending.replace(chr(47), chr(45))}", change)
    assert failures(tampered, learned, read_kept(learned[3])) == [(names[0], 1)]


def test_a_change_beside_constants_and_nodes_is_found(learned: tuple[Path, Path, Recipe, Path]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="note", value="nothing to see")

    tampered = broken(learned[0], "note", change)
    assert failures(tampered, learned, read_kept(learned[3])) == [("", None)]


def test_a_file_that_keeps_nothing_is_not_read(tmp_path: Path, learned: tuple[Path, Path, Recipe, Path]) -> None:
    whole = learned[3].read_bytes()
    assert read_kept(tmp_path / "none.npz") is None
    for name, data in {"short": whole[: len(whole) // 2], "text": b"ranges", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        assert read_kept(tmp_path / name) is None
