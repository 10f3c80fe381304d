from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from onnx import numpy_helper

from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.cli.main import run
from edgewise.contracts.manifest import Manifest, Variant
from edgewise.contracts.run import Run
from edgewise.errors import DigestError, SignatureError
from edgewise.forge.seal.drift import reference_of
from edgewise.keys.files import load_public
from edgewise.keys.pair import generate, public_of
from edgewise.runtimes import runtime

BUNDLE = Path("kws-1.3.0.edgewise")
SEAL = ["seal", "run", "-o", str(BUNDLE), "--key", "seal.pem"]
TOOL = Path(sysconfig.get_path("scripts")) / "model_signing"


@pytest.fixture
def sealed(place: Path, bundle: Path) -> Path:
    """A bundle of its own in `place`, as if it had been sealed there."""
    return Path(shutil.copy(bundle, place / BUNDLE))


def replay(folder: Path, manifest: Manifest, variant: Variant) -> list[float]:
    """Return per golden input the largest distance of an output in tolerances: at most 1 is right."""
    session = runtime(variant.runtime).load(folder / variant.model, threads=variant.threads)
    inputs, outputs = (folder / manifest.golden.path).read_bytes(), (folder / variant.golden.path).read_bytes()
    worst = []
    for given, expected in zip(manifest.golden.samples, variant.golden.samples, strict=True):
        found = session.run({each.name: read_tensor(inputs, each) for each in given})
        worst.append(
            max(
                float(np.max(np.abs(array - read_tensor(outputs, each.tensor)))) / each.tolerance
                for array, each in zip(found, expected, strict=True)
            )
        )
    return worst


def test_a_run_becomes_a_bundle_that_verifies(sealed: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Bundle.open(sealed) as bundle:
        bundle.verify([load_public(place / "seal.pub")])
        bundle.verify_model_signature(load_public(place / "seal-model.pub"))
        manifest = bundle.manifest
        evidence = msgspec.json.decode(bundle.read("evidence.json", most=1 << 24), type=Run)
    assert (manifest.product, manifest.version) == ("kws", "1.3.0")
    assert manifest.chosen == manifest.variants[0].name
    assert manifest.fallback == "fp32"
    assert evidence.chosen is not None
    assert evidence.model_digest == manifest.model_digest
    assert run(["bundle", "verify", str(sealed), "--key", "seal.pub", "--model-key", "seal-model.pub"]) == 0
    assert run(["bundle", "show", str(sealed)]) == 0
    assert "chosen" in capsys.readouterr().out


def test_golden_inputs_are_found_again_and_tell_a_broken_model(sealed: Path, tmp_path: Path) -> None:
    with Bundle.open(sealed) as bundle:
        manifest = bundle.manifest
        bundle.extract(tmp_path / "out")
    for variant in manifest.variants:
        assert max(replay(tmp_path / "out", manifest, variant)) <= 1
        weights = tmp_path / "out" / str(variant.weights)
        damaged = bytearray(weights.read_bytes())
        place = max(variant.tensors, key=lambda each: each.size)
        damaged[place.offset : place.offset + place.size] = bytes(place.size)
        weights.write_bytes(damaged)
        assert max(replay(tmp_path / "out", manifest, variant)) > 1


def test_the_tensors_are_those_of_the_model(sealed: Path, place: Path) -> None:
    original = {each.name: each for each in onnx.load(place / "model.onnx").graph.initializer}
    with Bundle.open(sealed) as bundle:
        fp32 = next(each for each in bundle.manifest.variants if each.name == "fp32")
        data = bundle.read(str(fp32.weights), most=1 << 24)
    assert fp32.tensors
    for each in fp32.tensors:
        np.testing.assert_array_equal(read_tensor(data, each), numpy_helper.to_array(original[each.name]))


def test_a_bundle_says_nothing_of_the_machine_it_was_made_on(bundle: Path, made: Path) -> None:
    assert str(made).encode() not in bundle.read_bytes()
    assert str(bundle.parent).encode() not in bundle.read_bytes()


def test_the_same_run_and_key_give_the_same_bytes(place: Path) -> None:
    assert run([*SEAL, "--no-model-signature"]) == 0
    first = (place / BUNDLE).read_bytes()
    assert run([*SEAL, "--no-model-signature"]) == 0
    assert (place / BUNDLE).read_bytes() == first


def test_fp32_can_be_left_out(place: Path) -> None:
    assert run([*SEAL, "--no-fallback"]) == 0
    with Bundle.open(place / BUNDLE) as bundle:
        assert [each.name for each in bundle.manifest.variants] == [bundle.manifest.chosen]
        assert bundle.manifest.fallback == bundle.manifest.chosen
        bundle.verify([load_public(place / "seal.pub")])


def test_the_bill_of_materials_follows_its_schema(sealed: Path) -> None:
    with Bundle.open(sealed) as bundle:
        text = bundle.read("bom.cdx.json", most=1 << 20).decode()
        card = bundle.read("card.md", most=1 << 20).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = msgspec.json.decode(text)
    assert document["metadata"]["component"]["type"] == "machine-learning-model"
    assert document["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert card.startswith("# kws 1.3.0\n")


def model_signing(folder: Path, key: str = "seal-model.pub") -> bool:
    """Return whether the reference tool accepts a folder."""
    command: list[str | Path] = [TOOL, "verify", "key", folder, "--signature", folder / "model.sig"]
    done = subprocess.run(
        [*command, "--public_key", key, "--no-ignore-git-paths"], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ("Verification succeeded" in done.stdout), done.stderr
    return done.returncode == 0


def test_the_reference_tool_accepts_the_model_signature_and_nothing_else(sealed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run(["bundle", "extract", str(sealed), str(folder), "--key", "seal.pub"]) == 0
    payload = msgspec.json.decode((folder / "model.sig").read_bytes())["dsseEnvelope"]["payload"]
    statement = msgspec.json.decode(base64.b64decode(payload))
    assert statement["predicate"]["serialization"]["ignore_paths"] == []
    assert model_signing(folder)
    assert not model_signing(folder, key="seal.pub")

    with Bundle.open(sealed) as bundle:
        names = [name for name in bundle.entries if name != "model.sig"]
    changed = folder / names[-1]
    whole = changed.read_bytes()
    changed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not model_signing(folder)
    changed.unlink()
    assert not model_signing(folder)
    changed.write_bytes(whole)
    assert model_signing(folder)
    for extra in ("extra.bin", ".gitignore", "variants/extra.bin"):
        (folder / extra).write_bytes(b"")
        assert not model_signing(folder), extra
        (folder / extra).unlink()
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b" ")
    assert not model_signing(folder)


def test_our_own_check_refuses_what_the_tool_refuses(sealed: Path, place: Path) -> None:
    with Bundle.open(sealed) as bundle:
        with pytest.raises(SignatureError):
            bundle.verify_model_signature(public_of(generate("ecdsa-p256")))
        bundle._digests["card.md"] = "0" * 64
        with pytest.raises(DigestError, match="other files"):
            bundle.verify_model_signature(load_public(place / "seal-model.pub"))


def test_a_verification_is_taken_along_with_its_calibration(place: Path, verified: Path) -> None:
    assert verified.is_file()
    assert run(SEAL) == 0
    with Bundle.open(place / BUNDLE) as bundle:
        chosen = bundle.manifest.variants[0]
        found = msgspec.json.decode(bundle.read("verification.json", most=1 << 24))
    assert chosen.verification == found["verdict"]
    assert found["variant_digest"] == chosen.source_digest
    assert msgspec.convert(found["calibration"], type(chosen.calibration)) == chosen.calibration


@pytest.mark.parametrize(
    ("verdict", "said"), [("pass", ""), ("fail", "fp32 failed"), ("unknown", "fp32 did not come to a verdict")]
)
def test_a_verification_that_did_not_pass_is_said_aloud(
    verdict: str, said: str, place: Path, verified: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = msgspec.json.decode(verified.read_bytes())
    verified.write_bytes(msgspec.json.encode(found | {"verdict": verdict}))
    capsys.readouterr()
    assert run(SEAL) == 0
    err = capsys.readouterr().err
    with Bundle.open(place / BUNDLE) as bundle:
        assert bundle.manifest.variants[0].verification == verdict
        chosen = bundle.manifest.chosen
    assert ("warning: " in err) == bool(said)
    assert said.replace("fp32", chosen) in err


def test_a_verification_of_another_variant_is_refused(
    place: Path, verified: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = msgspec.json.decode(verified.read_bytes())
    verified.write_bytes(msgspec.json.encode(found | {"variant_digest": "0" * 64}))
    assert run(SEAL) == 2
    assert "another variant" in capsys.readouterr().err
    assert not (place / BUNDLE).exists()


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_crash_while_writing_leaves_the_old_bundle(step: str, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Killed

    before = sealed.read_bytes()
    with monkeypatch.context() as patch:
        owner: object = Path if step == "replace" else os
        patch.setattr(owner, step, fail)
        with pytest.raises(Killed):
            run(SEAL)
    assert sealed.read_bytes() == before
    assert [each.name for each in sealed.parent.glob(".*partial")] == []


def test_drift_cutoffs_pass_good_windows_and_refuse_shifted_ones() -> None:
    random = np.random.default_rng(1)
    good = random.beta(4, 2, 800)
    reference = reference_of(good, seed=0)
    assert reference is not None
    assert sum(reference.shares) == pytest.approx(1)

    def ks(values: np.ndarray) -> float:
        counts = np.bincount(np.searchsorted(reference.edges, values, side="right"), minlength=len(reference.shares))
        return float(np.max(np.abs(np.cumsum(counts / values.size - np.array(reference.shares)))))

    passed = [ks(random.beta(4, 2, reference.window)) <= reference.ks_cutoff for _ in range(300)]
    assert np.mean(passed) > 0.95
    assert ks(random.beta(2, 4, reference.window)) > reference.ks_cutoff
    assert reference_of(np.ones(100), seed=0) is None


def test_extracting_twice_is_refused_and_leaves_the_first(sealed: Path, tmp_path: Path) -> None:
    assert run(["bundle", "extract", str(sealed), str(tmp_path / "out")]) == 0
    before = sorted(each.name for each in (tmp_path / "out").rglob("*"))
    assert run(["bundle", "extract", str(sealed), str(tmp_path / "out")]) == 2
    assert sorted(each.name for each in (tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize("name", ["card.md", "manifest.json", "model.sig", "variants/fp32/weights.bin"])
def test_a_damaged_bundle_leaves_nothing_when_it_is_extracted(name: str, sealed: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.edgewise"
    data = bytearray(sealed.read_bytes())
    with Bundle.open(sealed) as bundle:
        data[bundle.entries[name].offset] ^= 1
    damaged.write_bytes(data)
    assert run(["bundle", "extract", str(damaged), str(tmp_path / "no")]) != 0
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith((".no", "no"))) == []


def test_two_bundles_are_compared(sealed: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(sealed, place / "old.edgewise")
    assert run([*SEAL, "--version", "1.4.0"]) == 0
    capsys.readouterr()
    assert run(["bundle", "diff", "old.edgewise", str(BUNDLE)]) == 0
    out = capsys.readouterr().out
    assert '"1.3.0" -> "1.4.0"' in out
    assert "changed  bom.cdx.json" in out
    assert run(["bundle", "diff", str(BUNDLE), str(BUNDLE)]) == 0
    assert capsys.readouterr().out == "the same\n"
