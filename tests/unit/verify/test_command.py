"""`edgewise verify` from the command line: what it says, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise.cli.main import run
from edgewise.contracts.verification import Depth, Section, Verification
from edgewise.errors import WorkerError
from edgewise.forge.kept import KEPT
from edgewise.forge.progress import Progress
from edgewise.forge.verify import verify as verifying
from edgewise.forge.verify.subject import Subject
from tests.unit.report.verifications import verification

Text = pytest.CaptureFixture[str]


@pytest.fixture
def place(data: Path, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a variant and data, which is the current one; few samples, as each test verifies them."""
    monkeypatch.chdir(tmp_path)
    place = laid_out(tmp_path, data, int8)
    with np.load(place / "data" / "test.npz") as arrays:
        np.savez(place / "data" / "test.npz", x=arrays["x"][:160], y=arrays["y"][:160])
    return place


def laid_out(folder: Path, data: Path, int8: Path) -> Path:
    shutil.copytree(data, folder / "data")
    shutil.copy(data / "model.onnx", folder / "model.onnx")
    shutil.copy(int8, folder / "int8.onnx")
    return folder


BARE = ["--reference", "model.onnx", "--data", "data"]


def verified(capfd: Text, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run(["verify", *arguments, "--json"])
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return code, found


def test_a_run_is_verified_with_its_own_model_data_and_budget(demo_run: Path, tmp_path: Path, capfd: Text) -> None:
    folder = tmp_path / "run"
    shutil.copytree(demo_run, folder)
    code, found = verified(capfd, str(folder))
    assert (code, found["verdict"]) == (0, "pass")
    assert [each["limit"] for each in found["limits"]] == ["size_mib"]
    written = msgspec.json.decode((folder / "verification" / "verification.json").read_bytes(), type=Verification)
    assert json.loads(msgspec.json.encode(written)) == found
    assert not (folder / "verification" / ".edgewise" / "model" / "variant.onnx").exists()


def test_fp32_against_itself_passes_everything(place: Path, capfd: Text) -> None:
    del place
    code, found = verified(capfd, "model.onnx", *BARE)
    judged = [section for section in found["sections"] if section["suite"] not in {"cost", "streams"}]  # times vary
    grades = {each["grade"] for section in judged for each in section["findings"]}
    assert code == 0
    assert grades <= {"pass", "noted", "unavailable"}
    assert found["figures"]["flip_rate"] == 0


def test_a_good_variant_passes_without_a_budget(place: Path, capfd: Text) -> None:
    del place
    code, found = verified(capfd, "int8.onnx", *BARE)
    assert (code, found["verdict"], found["limits"]) == (0, "pass", [])


def test_a_limit_that_breaks_is_exit_1(place: Path, capfd: Text) -> None:
    del place
    code, found = verified(capfd, "int8.onnx", *BARE, "--size-mib", "0.01")
    assert (code, found["verdict"]) == (1, "fail")


def test_a_limit_that_nobody_can_measure_is_exit_3(place: Path, capfd: Text) -> None:
    with np.load(place / "data" / "test.npz") as arrays:
        np.savez(place / "data" / "test.npz", x=arrays["x"][:40])
    code, found = verified(capfd, "int8.onnx", *BARE, "--accuracy-drop", "0.01")
    assert (code, found["verdict"]) == (3, "unknown")
    assert any("no labels" in each for each in found["warnings"])


def test_a_suite_that_breaks_off_is_never_a_pass(place: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(_: Subject, __: Progress) -> Section:
        raise WorkerError("the worker is gone", required="a worker", next_step="free some memory")

    monkeypatch.setattr(verifying, "SUITES", (("where", breaking, tuple(Depth)),))
    assert run(["verify", "int8.onnx", *BARE, "--output", "out"]) == 3
    said = " ".join(capfd.readouterr().out.split())
    assert "int8.onnx is not verified" in said
    assert "NOT VERIFIED, for a suite broke off: where" in said
    assert "the worker is gone" in said
    page = (place / "out" / "verification.html").read_text()
    assert "Is not verified: a suite broke off" in page
    assert "NOT VERIFIED, for a suite broke off: where" in page
    # What fails still fails.
    assert run(["verify", "int8.onnx", *BARE, "--output", "out", "--size-mib", "0.01"]) == 1


def test_the_table_names_what_fails(place: Path, capfd: Text) -> None:
    broken = onnx.load(place / "model.onnx")
    weight = max(broken.graph.initializer, key=lambda each: int(np.prod(each.dims)))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(broken, place / "broken.onnx")
    assert run(["verify", "broken.onnx", *BARE]) == 1
    out = capfd.readouterr().out
    assert "broken.onnx fails" in out
    assert "agreement.flips" in out
    assert "agreement.score" in out


def test_a_config_gives_model_data_and_budget(place: Path, capfd: Text) -> None:
    (place / "edgewise.toml").write_text(
        '[model]\npath = "model.onnx"\n[task]\ncalibrate = "data/calibrate.npz"\ntest = "data/test.npz"\n'
        "[budget]\nflip_rate = 0.5\n"
    )
    code, found = verified(capfd, "int8.onnx", "--config", "edgewise.toml")
    assert code == 0
    assert [(each["limit"], each["verdict"]) for each in found["limits"]] == [("flip_rate", "pass")]


def test_changes_against_a_baseline_are_listed(place: Path, capfd: Text) -> None:
    assert verified(capfd, "model.onnx", *BARE, "--output", "old")[0] == 0
    _, found = verified(capfd, "int8.onnx", *BARE, "--baseline", "old")
    assert found["baseline"] == "old"
    assert "agreement.divergence" in {each["name"] for each in found["changes"]}
    del place


BAD: dict[str, tuple[list[str], str]] = {
    "missing variant": (["in8.onnx", *BARE], "did you mean 'int8.onnx'"),
    "no reference and no data": (["int8.onnx"], "without --reference MODEL and --data DIR"),
    "missing reference": (["int8.onnx", "--reference", "modle.onnx", "--data", "data"], "did you mean 'model.onnx'"),
    "missing data": (["int8.onnx", "--reference", "model.onnx", "--data", "nowhere"], "is missing"),
    "data without test": (["int8.onnx", "--reference", "model.onnx", "--data", "empty"], "test.npz"),
    "no samples": (["int8.onnx", "--reference", "model.onnx", "--data", "none"], "sample"),
    "variant is no ONNX file": (["text.onnx", *BARE], "text.onnx"),
    "variant with other inputs": (["other.onnx", *BARE], "those of the reference"),
    "variant with other outputs": (["wide.onnx", *BARE], "those of the reference"),
    "variant reaches outside its folder": (["outside.onnx", *BARE], "the model's own folder"),
    "reference gives NaN": (["int8.onnx", "--reference", "nan.onnx", "--data", "data"], "gives NaN"),
    "a folder that is no run": (["data", *BARE], "a folder without evidence.json"),
    "a run that chose nothing": (["unfit"], "chose no variant"),
    "a run of which the model is gone": (["moved"], "no such file"),
    "a run that cannot be read": (["garbled"], "cannot be read"),
    "a run of another version": (["future"], "a document of version 99"),
    "a run without its evidence": (["bare"], "a folder without evidence.json"),
    "a run of which the kept calibration is damaged": (["damaged"], "calibrated.npz cannot be read"),
    "a bundle": (["kws-1.0.0.edgewise", *BARE], "is a bundle"),
    "an extracted bundle": (["extracted"], "is a bundle"),
    "not a number among the samples": (["int8.onnx", "--reference", "model.onnx", "--data", "holes"], "nan"),
    "unknown suite": (["int8.onnx", *BARE, "--suite", "thorough"], "full"),
    "unknown task": (["int8.onnx", *BARE, "--task", "clasification"], "did you mean classification"),
    "negative limit": (["int8.onnx", *BARE, "--flip-rate", "-1"], "from 0 to 1"),
    "negative rate": (["int8.onnx", *BARE, "--fps", "-1"], "above 0"),
    "groups of another length": (["int8.onnx", *BARE, "--groups", "groups.txt"], "one for each test sample"),
    "missing groups": (["int8.onnx", *BARE, "--groups", "nobody.txt"], "nobody.txt"),
    "missing baseline": (["int8.onnx", *BARE, "--baseline", "data"], "holds no verification"),
    "truncated baseline": (["int8.onnx", *BARE, "--baseline", "short.json"], "verify the old variant again"),
    "baseline of another version": (["int8.onnx", *BARE, "--baseline", "new.json"], "a document of version 2"),
    "baseline that is a run's evidence": (["int8.onnx", *BARE, "--baseline", "run.json"], "cannot be read"),
    "output is a file": (["int8.onnx", *BARE, "--output", "model.onnx"], "is a file"),
    "output cannot be made": (["int8.onnx", *BARE, "--output", "/proc/edgewise/out"], "cannot be written"),
}


@pytest.fixture(scope="module")
def mess(data: Path, int8: Path, demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that is wrong; whoever is refused leaves it as it was."""
    place = laid_out(tmp_path_factory.mktemp("mess"), data, int8)
    (place / "empty").mkdir()
    (place / "none").mkdir()
    with np.load(place / "data" / "test.npz") as arrays:
        np.savez(place / "none" / "test.npz", x=arrays["x"][:0], y=arrays["y"][:0])
        (place / "holes").mkdir()
        holed = arrays["x"][:64].astype(np.float32)
        holed[5, 0, 3, 3] = np.nan
        np.savez(place / "holes" / "test.npz", x=holed, y=arrays["y"][:64])
    (place / "text.onnx").write_text("hello")
    whole = msgspec.json.encode(verification())
    (place / "short.json").write_bytes(whole[: len(whole) // 2])
    (place / "new.json").write_bytes(whole.replace(b'"format_version":1,', b'"format_version":2,"news":[],', 1))
    shutil.copy(demo_run / "evidence.json", place / "run.json")
    (place / "kws-1.0.0.edgewise").write_bytes(b"PK")
    (place / "extracted").mkdir()
    for name in ("manifest.json", "evidence.json"):
        (place / "extracted" / name).write_text("{}")
    (place / "groups.txt").write_text("a\nb\n")
    model = onnx.load(place / "model.onnx")
    _save(model, place / "other.onnx", inputs="pixels")
    _save(model, place / "nan.onnx", nan=True)
    _save(model, place / "wide.onnx", wide=True)
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    (place / "outside.onnx").write_bytes(outside.SerializeToString())
    for name in ("unfit", "moved", "garbled", "future", "bare", "damaged"):
        shutil.copytree(demo_run, place / name)
    evidence = json.loads((place / "unfit" / "evidence.json").read_text())
    (place / "unfit" / "evidence.json").write_text(json.dumps(evidence | {"chosen": None}))
    project = json.loads((place / "moved" / "project.json").read_text())
    (place / "moved" / "project.json").write_text(json.dumps(project | {"base": "/nowhere"}))
    (place / "garbled" / "evidence.json").write_text('{"model": 3}')
    (place / "future" / "evidence.json").write_text('{"format_version": 99}')
    (place / "bare" / "evidence.json").unlink()
    kept = place / "damaged" / KEPT
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"PK\x03\x04 torn off")
    return place


def _save(model: onnx.ModelProto, path: Path, *, inputs: str = "", nan: bool = False, wide: bool = False) -> None:
    """Write the model with its input renamed, with an output of NaN, or with an output of another shape."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    output = graph.output[0].name
    if inputs:
        for node in graph.node:
            node.input[:] = [inputs if each == graph.input[0].name else each for each in node.input]
        graph.input[0].name = inputs
    if nan:
        graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "not_a_number"))
        graph.node.append(onnx.helper.make_node("Mul", [output, "not_a_number"], ["broken"]))
        graph.output[0].name = "broken"
    if wide:
        graph.node.append(onnx.helper.make_node("Concat", [output, output], ["wide"], axis=1))
        graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.FLOAT, [1, 20]))
    onnx.save(changed, path)


def everything(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_gets_one_message_and_leaves_nothing(
    mess: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(mess)
    before = everything(mess)
    assert run(["verify", *arguments, "--json"]) == 2
    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert words in " ".join(f"{error['found']} {error['required']} {error['next_step']}".split())
    assert error["found"]
    assert error["next_step"] or words == "full", "an option's own values are told by the parser"
    assert "Traceback" not in err
    assert everything(mess) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(place: Path, capfd: Text) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert run(["verify", "int8.onnx", *BARE, "--output", "locked/out"]) == 2
    assert "cannot be written" in capfd.readouterr().err
