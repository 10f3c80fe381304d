"""Which variants of a run are sealed beside the chosen one, and what each of them brings along."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from edgewise.bundle.read import Bundle
from edgewise.cli.main import run
from edgewise.contracts.evidence import Figures
from edgewise.contracts.run import Run
from edgewise.contracts.task import TaskConfig
from edgewise.demo import demo_folder
from edgewise.forge.data.open import TEST, open_split
from edgewise.forge.data.split import Subset
from edgewise.forge.progress import Silent
from edgewise.forge.seal.examine import Examiner
from tests.unit.seal.test_seal import BUNDLE, SEAL, replay
from tests.unit.verify.subjects import subject


def with_kept(place: Path, **figures: dict[str, float]) -> None:
    """Put variants into the run as if it had measured and kept them; their file is the chosen one's."""
    path = place / "run" / "evidence.json"
    found = msgspec.json.decode(path.read_bytes(), type=Run)
    assert found.chosen is not None
    file = place / "run" / "variants" / Path(str(found.chosen.path)).name
    model = file if file.is_file() else place / "model.onnx"
    chosen = next(each for each in found.candidates if each.name == found.chosen.name)
    more = []
    for name, known in figures.items():
        kept = shutil.copy(model, file.with_name(f"{name}.onnx"))
        more.append(msgspec.structs.replace(chosen, **{"name": name, "path": str(kept), "score": None, **known}))
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, candidates=(*found.candidates, *more))))


def sealed_names(bundle: Path) -> list[str]:
    with Bundle.open(bundle) as opened:
        return [each.name for each in opened.manifest.variants]


def test_the_fastest_and_the_smallest_of_a_run_are_sealed_too(place: Path) -> None:
    with_kept(
        place,
        quick={"speedup": 9.0, "size_mib": 0.9, "divergence": 7.0},
        less_quick={"speedup": 8.0, "size_mib": 0.9},
        small={"speedup": 1.0, "size_mib": 0.001},
        slow={"speedup": 0.5, "size_mib": 0.9},
    )
    assert run([*SEAL, "--no-model-signature"]) == 0
    with Bundle.open(place / BUNDLE) as bundle:
        manifest = bundle.manifest
        bundle.extract(place / "out")
        card = bundle.read("card.md", most=1 << 20).decode()
    assert [each.name for each in manifest.variants] == [manifest.chosen, "quick", "small", "fp32"]
    assert manifest.fallback == "fp32"
    for each in manifest.variants:
        assert max(replay(place / "out", manifest, each)) <= 1
        assert f"| {each.name} |" in card
    quick = manifest.variants[1].figures
    assert (quick.speedup, quick.path) == (9.0, None)
    # Accuracy is measured on the test split, not taken from the run's select split.
    assert quick.divergence is not None
    assert quick.divergence < 1

    assert run([*SEAL, "--only-chosen"]) == 0
    assert sealed_names(place / BUNDLE) == [manifest.chosen, "fp32"]
    assert run([*SEAL, "--variant", "slow", "--variant", "less_quick", "--variant", "slow", "--no-fallback"]) == 0
    assert sealed_names(place / BUNDLE) == [manifest.chosen, "slow", "less_quick"]


def test_a_faster_variant_that_breaks_a_limit_on_accuracy_is_sealed_only_by_name(place: Path) -> None:
    with_kept(place, quick={"speedup": 9.0, "flip_rate": 0.2})
    path = place / "run" / "evidence.json"
    found = msgspec.json.decode(path.read_bytes())
    found["budget"]["limits"]["flip_rate"] = 0.1
    path.write_bytes(msgspec.json.encode(found))
    assert run(SEAL) == 0
    assert "quick" not in sealed_names(place / BUNDLE)
    assert run([*SEAL, "--variant", "quick"]) == 0
    assert "quick" in sealed_names(place / BUNDLE)


def test_a_variant_that_is_not_there_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_kept(place, quick={"speedup": 9.0})
    for options, said in (
        (["--variant", "another"], "quick"),
        (["--variant", "quick", "--only-chosen"], "one or the other"),
        (["--variant", "fp32", "--no-fallback"], "one or the other"),
    ):
        assert run([*SEAL, *options]) == 2
        assert said in capsys.readouterr().err
    (place / "run" / "variants" / "quick.onnx").unlink()
    assert run(SEAL) == 2
    assert "not in variants/ any more" in " ".join(capsys.readouterr().err.split())
    assert not (place / BUNDLE).exists()


def test_a_classifier_gets_the_calibration_of_its_own_outputs() -> None:
    model = demo_folder() / "model.onnx"
    given = subject(model, model)
    test = open_split(
        TEST,
        config=TaskConfig(calibrate="calibrate.npz", test="test.npz"),
        inputs=given.reference.inputs,
        folder=demo_folder(),
    )
    assert test is not None
    examiner = Examiner(
        task=given.task,
        test=Subset(test, range(0, len(test), 8)),
        calibrate=given.calibrate,
        reference_path=model,
        reference=given.reference,
        runtime=given.runtime,
        threads=1,
        seed=0,
        progress=Silent(),
    )
    figures, found = examiner.examine(model, Figures(path=None, runtime="onnxruntime", latency_p50_ms=1.5))
    assert (figures.flip_rate, figures.divergence, figures.latency_p50_ms) == (0.0, 0.0, 1.5)
    assert figures.score is not None
    assert found.temperature is not None
    assert set(found.conformal) == {"0.8", "0.9", "0.95"}
    assert {each.score for each in found.cutoffs} == {"energy", "max_logit", "mahalanobis"}
    assert examiner.examine(model, figures)[1] == found
