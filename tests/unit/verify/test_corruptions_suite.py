"""The corruptions suite tells a variant that breaks under a condition from fp32 itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.contracts.verification import Depth, Finding, Grade, Section
from edgewise.forge.progress import Silent
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.corruptions.compare import excess, qualities
from edgewise.forge.verify.corruptions.modality import view_of
from edgewise.forge.verify.corruptions.pixels import space_of_samples
from edgewise.forge.verify.corruptions.suite import corruptions, finding_of
from edgewise.forge.verify.corruptions.trial import Side, Trial, Trials
from tests.unit.verify.paired_subjects import coarse, dazzled, subject_of


def named(section: Section, name: str) -> Finding:
    (found,) = (each for each in section.findings if each.name == name)
    return found


def test_fp32_against_itself_passes_every_condition(data: Path) -> None:
    section = corruptions(subject_of(data, data / "model.onnx"), Silent())
    grades = {each.name: each.grade for each in section.findings}
    assert set(grades.values()) <= {Grade.PASS, Grade.NOTED}
    assert sum(grade is Grade.PASS for grade in grades.values()) >= 6
    assert named(section, "corruptions.flips").value == 0.0
    assert section.seed == 0


def test_a_variant_that_is_blind_in_haze_fails_what_lifts_the_black_alone(data: Path, tmp_path: Path) -> None:
    """It agrees with fp32 on every clean input: all of those have a black background."""
    subject = subject_of(data, dazzled(data / "model.onnx", tmp_path, limit=0.5), samples=64, seconds=4.0)
    assert max(subject.pairs.divergences) < 1e-6
    section = corruptions(subject, Silent())
    assert named(section, "corruptions.brightness").grade is Grade.FAIL
    assert named(section, "corruptions.contrast").grade is Grade.FAIL
    assert named(section, "corruptions.jpeg_compression").grade is Grade.PASS
    assert named(section, "corruptions.gaussian_noise").grade is Grade.PASS


@pytest.mark.parametrize(
    ("lost", "grade"),
    [(0.0006, Grade.PASS), (0.0035, Grade.PASS), (0.006, Grade.FLAG), (0.03, Grade.FLAG), (0.08, Grade.FAIL)],
)
def test_a_sure_loss_is_told_where_it_is_a_tenth_of_the_margin(lost: float, grade: Grade) -> None:
    """The smallest, with about this spread, was flagged of a MiniLM whose score is 0.86 and its margin 0.043."""
    losses = np.random.default_rng(0).normal(lost, lost / 3, 192)
    found = excess(losses - losses.mean() + lost, generator=np.random.default_rng(1))
    sides = (Side(loss=np.full(192, at), broken=0) for at in (0.18, 0.18 + lost))
    trial = Trial(reference=next(sides), variant=next(sides), flips=None)
    trials = Trials(cases={("typos", 5): trial}, clean_flips=None, samples=192, measure="spearman")
    judged = finding_of(trials, "typos", found, found.p, 0.043)
    assert found.p < 0.001, "significant in every case"
    assert judged.grade is grade
    assert ("too little to tell" in judged.detail) is (grade is Grade.PASS)


def test_the_same_seed_gives_the_same_section(data: Path, tmp_path: Path) -> None:
    variant = coarse(data / "model.onnx", tmp_path)
    few = [corruptions(subject_of(data, variant, samples=8, seconds=0.01), Silent()) for _ in range(2)]
    assert few[0] == few[1]


def test_full_looks_at_every_condition_and_severity(data: Path) -> None:
    section = corruptions(subject_of(data, data / "model.onnx", samples=2, depth=Depth.FULL, seconds=0.01), Silent())
    table = section.tables[0]
    assert len(table.rows) == 16 * 5, "15 and the resize filters; one channel has neither chroma nor order"
    assert {len(row) for row in table.rows} == {len(table.columns)}
    msgspec.json.encode(section)


def test_the_demo_is_seen_as_an_image(data: Path) -> None:
    view = view_of(subject_of(data, data / "model.onnx", samples=20))
    assert not isinstance(view, str)
    assert view.kind == "image"
    assert view.space is not None
    assert view.space.is_known


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0, 1.0, "0..1"),
        (-1.0, 1.0, "-1..1"),
        (0.0, 255.0, "0..255"),
        ((-2.117904, -2.035714, -1.804444), (2.248908, 2.428571, 2.64), "ImageNet"),
        (-5.0, 9.0, "range of the samples"),
    ],
)
@pytest.mark.parametrize("channels_first", [True, False])
def test_pixels_come_back_from_every_usual_range(
    low: float,
    high: float,
    words: str,
    channels_first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    values = (np.asarray(low) + pixels / 255 * (np.asarray(high) - np.asarray(low))).astype(np.float32)
    values = (values.transpose(2, 0, 1) if channels_first else values)[None]
    space = space_of_samples([values], channels=3, channels_first=channels_first)
    assert words in space.words
    assert (space.pixels(values) == pixels).all()
    np.testing.assert_allclose(space.values(pixels, values), values, atol=1e-3)


def test_a_sign_flip_test_finds_a_shift_and_not_noise() -> None:
    draw = np.random.default_rng(0)
    shifted = excess(draw.normal(0.5, 1, 60), generator=np.random.default_rng(1))
    noise = excess(draw.normal(0, 1, 60), generator=np.random.default_rng(1))
    assert shifted.p < 0.01 < noise.p
    assert excess(np.zeros(30), generator=np.random.default_rng(1)).p == 1.0
    assert excess(-np.abs(draw.normal(size=30)), generator=np.random.default_rng(1)).p > 0.9


def test_a_sign_flip_test_rejects_true_hypotheses_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    p = [excess(draw.choice([-1.0, 0, 0, 1.0], 40), generator=draw).p for _ in range(60)]
    assert sum(each < 0.05 for each in p) <= 8


def test_the_quality_of_a_class_is_whether_it_is_right() -> None:
    found = qualities(Classification(classes=3), [np.array([1, 0]), np.array([2, 0]), np.array([0, 1])], [1, 0, None])
    assert found is not None
    np.testing.assert_array_equal(found, [1.0, 0.0, np.nan])
