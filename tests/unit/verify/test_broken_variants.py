"""Variants broken on purpose are found out, and what is found has the right name; good ones pass."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Grade
from edgewise.demo import demo_folder
from edgewise.forge.data.open import open_dataset
from edgewise.forge.progress import Silent
from edgewise.forge.verify.agreement import agreement
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.verify.pairs import pair
from edgewise.forge.verify.where import where
from tests.unit.verify.subjects import names, subject, troubles
from tests.unit.verify.variants import LAST, LAYER, Images, broken, calibration, edit, quantized, weight_of

SHIRT = 6


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized(calibration(), tmp_path_factory.mktemp("variants"), "good")


def recalibrated(good: Path, images: Images, name: str) -> Path:
    return quantized(images, good.parent, name)


def found(variant: Path, normalised: Path) -> set[tuple[str, str]]:
    it = subject(variant, normalised)
    return names(where(it, Silent())) | names(integrity(it, Silent()))


def test_a_good_variant_is_neither_failed_nor_flagged(good: Path, normalised: Path) -> None:
    it = subject(good, normalised)
    section = where(it, Silent())
    assert troubles(section) == []
    assert troubles(integrity(it, Silent())) == []
    matched = next(each for each in section.findings if each.name == "where.matched")
    assert matched.value == matched.reference


def test_fp32_against_itself_passes_everything(normalised: Path) -> None:
    it = subject(demo_folder() / "model.onnx", normalised)
    sections = [where(it, Silent()), integrity(it, Silent())]
    graded = [(each.name, each.grade) for section in sections for each in section.findings]
    assert {grade for _, grade in graded} <= {Grade.PASS, Grade.NOTED}
    assert ("integrity.recipe", Grade.PASS) in graded
    assert ("integrity.weights", Grade.PASS) in graded


def test_one_planted_outlier_makes_ranges_too_wide(good: Path, normalised: Path) -> None:
    images = calibration()
    images[7, 0, 3, 5] = 4000.0
    assert ("where.range", "image") in found(recalibrated(good, images, "outlier"), normalised)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_scale_of_a_layers_weights_is_named(factor: float, good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        edit(model, f"{weight_of(model, LAYER)}_scale", lambda scale: np.asarray(scale * factor))

    names = found(broken(good, f"weights{factor}", change), normalised)
    assert {("where.scale", LAYER), ("where.weights", LAYER), ("integrity.weights", LAYER)} <= names


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_scale_of_a_layers_activations_is_named(factor: float, good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        edit(model, f"{LAYER}_scale", lambda scale: np.asarray(scale * factor))

    assert ("where.range", LAYER) in found(broken(good, f"activations{factor}", change), normalised)


def test_a_wrong_zero_point_on_one_channel_is_named(good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        def one(zero: np.ndarray) -> np.ndarray:
            zero[3] = 9
            return zero

        edit(model, f"{weight_of(model, LAYER)}_zero_point", one)

    names = found(broken(good, "zero", change), normalised)
    assert {("where.weights", LAYER), ("integrity.weights", LAYER)} <= names


def test_a_wrong_zero_point_of_an_activation_is_named(good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        edit(model, f"{LAYER}_zero_point", lambda zero: zero.astype(np.int64) - 60)

    names = found(broken(good, "activation-zero", change), normalised)
    assert ("where.zero_point", LAYER) in names


def test_perturbed_weights_of_one_class_are_named(good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        def row(codes: np.ndarray) -> np.ndarray:
            noise = np.random.default_rng(0).integers(-20, 20, codes.shape[1])
            codes[4] = np.clip(codes[4].astype(np.int64) + noise, -127, 127)
            return codes

        edit(model, f"{LAST}_quantized", row)

    names = found(broken(good, "row", change), normalised)
    assert ("integrity.weights", "logits") in names
    assert ("where.weights", "logits") in names


def test_one_flipped_bit_of_a_weight_is_found_and_named(good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        def bit(codes: np.ndarray) -> np.ndarray:
            codes[2, 11, 0, 0] ^= 1
            return codes

        edit(model, f"{weight_of(model, LAYER)}_quantized", bit)

    it = subject(broken(good, "bit", change), normalised)
    failed = [each for each in integrity(it, Silent()).findings if each.grade is Grade.FAIL]
    assert [each.subject for each in failed] == [LAYER]
    assert "element 11 of channel 2" in failed[0].detail


@pytest.mark.parametrize("kind", ["inverted", "noise", "dark"])
def test_calibration_on_other_data_is_named(kind: str, good: Path, normalised: Path) -> None:
    images = calibration(100)
    other: dict[str, Images] = {
        "inverted": 255 - images,
        "noise": np.random.default_rng(0).uniform(0, 255, images.shape).astype(np.float32),
        "dark": images // 4,
    }
    names = found(recalibrated(good, other[kind], kind), normalised)
    assert "where.calibration" in {name for name, _ in names}


def test_a_failing_subgroup_of_a_variant_that_does_well_elsewhere_is_named(good: Path, normalised: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        step = values["layers.13.bias_quantized_scale"][SHIRT]

        def lower(bias: np.ndarray) -> np.ndarray:
            bias[SHIRT] -= round(2.0 / float(step))
            return bias

        edit(model, "layers.13.bias_quantized", lower)

    whole = subject(broken(good, "subgroup", change), normalised)
    test = open_dataset(
        demo_folder() / "test.npz", config=TaskConfig(calibrate="calibrate.npz"), inputs=whole.reference.inputs
    )
    groups = tuple("rare" if target == SHIRT else f"common {at % 3}" for at, target in enumerate(test.targets or ()))
    pairs = pair(whole.task, whole.reference, whole.variant, test, report=lambda _: None)
    it = msgspec.structs.replace(whole, test=test, pairs=pairs, groups=groups)
    named = {each for each in names(agreement(it, Silent())) if each[0] == "agreement.subgroups"}
    assert named == {("agreement.subgroups", "rare")}
