"""What a user gets wrong: exit 2, one message in up to three parts, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgewise.cli.main import run
from tests.unit.cli.conftest import Optimizer

DATA = ["--data", "data"]

BAD: dict[str, tuple[list[str], str]] = {
    "missing model": (["optimize", "modle.onnx", *DATA], "did you mean 'model.onnx'"),
    "model is a folder": (["optimize", "data", *DATA], "a folder"),
    "module as a file": (["optimize", "net.py:build", *DATA], "write net:build"),
    "no data": (["optimize", "model.onnx"], "without data"),
    "missing data folder": (["optimize", "model.onnx", "--data", "nowhere"], "is missing"),
    "data is a file": (["optimize", "model.onnx", "--data", "model.onnx"], "not a folder"),
    "data without calibrate": (["optimize", "model.onnx", "--data", "other"], "calibrate.npz"),
    "missing config": (["optimize", "nowhere.toml"], "nowhere.toml cannot be read"),
    "config is a folder": (["optimize", "folder.toml"], "folder.toml cannot be read"),
    "config is not text": (["optimize", "binary.toml"], "not UTF-8"),
    "config with an unknown key": (["optimize", "typo.toml"], 'did you mean "latency_p99_ms"'),
    "config with a missing model": (["optimize", "gone.toml"], "gone.onnx"),
    "config and data": (["optimize", "edgewise.toml", *DATA], "a config names its own data"),
    "negative budget": (["optimize", "model.onnx", *DATA, "--latency-p99-ms", "-1"], "above 0"),
    "budget of zero": (["optimize", "model.onnx", *DATA, "--size-mib", "0"], "above 0"),
    "budget that is not finite": (["optimize", "model.onnx", *DATA, "--energy-mj", "nan"], "above 0"),
    "budget with a unit": (["optimize", "model.onnx", *DATA, "--latency-p50-ms", "5ms"], "write --latency-p50-ms 5"),
    "budget that is a word": (["optimize", "model.onnx", *DATA, "--peak-memory-mib", "much"], "plain number"),
    "flips above one": (["optimize", "model.onnx", *DATA, "--flip-rate", "2"], "from 0 to 1"),
    "negative drop": (["optimize", "model.onnx", *DATA, "--accuracy-drop", "-0.1"], "0 or more"),
    "unknown runtime": (["optimize", "model.onnx", *DATA, "--runtime", "tensorrt"], "onnxruntime"),
    "runtime twice": (
        ["optimize", "model.onnx", *DATA, "--runtime", "openvino", "--runtime", "openvino"],
        "without repeats",
    ),
    "unknown effort": (["optimize", "model.onnx", *DATA, "--effort", "heroic"], "thorough"),
    "unknown task": (["optimize", "model.onnx", *DATA, "--task", "clasification"], "did you mean classification"),
    "threads of zero": (["optimize", "model.onnx", *DATA, "--threads", "0"], "1 to 1024"),
    "threads that are no number": (["optimize", "model.onnx", *DATA, "--threads", "two"], "--threads"),
    "negative seed": (["optimize", "model.onnx", *DATA, "--seed", "-1"], "--seed"),
    "workers of zero": (["optimize", "model.onnx", *DATA, "--workers", "0"], "--workers"),
    "unknown option": (["optimize", "model.onnx", *DATA, "--latency", "5"], "--latency"),
    "unknown verb": (["optimise"], "optimise"),
    "two models": (["optimize", "model.onnx", "model.onnx", *DATA], "unexpected"),
    "output is a file": (["optimize", "model.onnx", *DATA, "--output", "model.onnx"], "is a file"),
    "output below a file": (["optimize", "model.onnx", *DATA, "--output", "model.onnx/run"], "cannot be written"),
    "output cannot be made": (["optimize", "model.onnx", *DATA, "--output", "/proc/edgewise/run"], "cannot be written"),
    "output holds other things": (["optimize", "model.onnx", *DATA, "--output", "other"], "holds other things"),
    "model name with a null": (["optimize", "a\0b", *DATA], "no such file"),
    "inspect a missing model": (["inspect", "nowhere.onnx"], "nowhere.onnx"),
    "inspect a bad shape": (["inspect", "model.onnx", "--input", "x=0,3"], "1 or more"),
    "probe an unknown target": (["targets", "probe", "--target", "lokal"], "did you mean 'local'"),
}


@pytest.fixture
def mess(place: Path) -> Path:
    (place / "other").mkdir()
    (place / "other" / "thesis.tex").write_text("years of work")
    (place / "folder.toml").mkdir()
    (place / "binary.toml").write_bytes(b"\xff\xfe\x00")
    config = (place / "edgewise.toml").read_text()
    (place / "typo.toml").write_text(config + "latency_p99 = 5\n")
    (place / "gone.toml").write_text(config.replace("model.onnx", "gone.onnx"))
    return place


def everything(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if "cache" not in each.parts}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_gets_one_message_and_leaves_nothing(
    mess: Path, optimizer: Optimizer, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    before = everything(mess)
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("error: ") == 1
    assert err.startswith("error: ")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 4
    assert everything(mess) == before
    assert optimizer.calls == []


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_document_with_json(
    mess: Path, optimizer: Optimizer, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    del mess, optimizer
    assert run([*arguments, "--json"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert set(error) == {"kind", "found", "required", "next_step"}
    assert words in " ".join(f"{error['found']} {error['required']} {error['next_step']}".split())


@pytest.mark.usefixtures("optimizer")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert run(["optimize", "model.onnx", *DATA, "--output", "locked/run"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_empty_folder_and_an_earlier_run_are_taken(place: Path, optimizer: Optimizer) -> None:
    (place / "empty").mkdir()
    assert run(["optimize", "model.onnx", *DATA, "--output", "empty"]) == 0
    killed = place / "killed"
    (killed / ".edgewise").mkdir(parents=True)
    assert run(["optimize", "model.onnx", *DATA, "--output", "killed"]) == 0
    assert len(optimizer.calls) == 2
