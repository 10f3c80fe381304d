from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import typer

from edgewise.cli.main import run
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort
from edgewise.errors import DataError, ExecutionError, OutputError
from tests.unit.cli.conftest import Optimizer
from tests.unit.report.runs import nothing_fits
from tests.unit.report.runs import run as a_run

MODEL = ["optimize", "model.onnx", "--data", "data"]


def test_a_model_and_a_folder_make_a_project(place: Path, optimizer: Optimizer) -> None:
    options = "--task embedding --target x86-avx2 --effort fast --threads 2 --seed 7 --workers 3 --cluster here --fresh"
    limits = "--latency-p50-ms 1 --latency-p99-ms 2 --peak-memory-mib 3 --size-mib 4 --energy-mj 5"
    more = "--accuracy-drop 0.01 --flip-rate 0.02 --runtime openvino --runtime onnxruntime --output out/here"
    assert run([*MODEL, *f"{options} {limits} {more}".split()]) == 0
    call = optimizer.call
    assert (call.base, call.output, call.cluster, call.fresh) == (place, Path("out/here"), "here", True)
    project = call.project
    assert project.model.path == "model.onnx"
    assert project.task.calibrate == str(place / "data" / "calibrate.npz")
    assert (project.task.select, project.task.test) == (None, str(place / "data" / "test.npz"))
    assert project.task.kind == "embedding"
    assert (project.target.profile, project.target.threads) == ("x86-avx2", 2)
    assert project.target.runtimes == ("openvino", "onnxruntime")
    assert (project.search.effort, project.search.seed, project.search.workers) == (Effort.FAST, 7, 3)
    assert project.budget == Budget(
        latency_p50_ms=1,
        latency_p99_ms=2,
        peak_memory_mib=3,
        size_mib=4,
        energy_mj=5,
        accuracy_drop=0.01,
        flip_rate=0.02,
    )
    assert sorted(each.name for each in Path("out/here").iterdir()) == [".edgewise", "evidence.json", "report.html"]


def test_options_override_a_config_and_paths_stay_relative_to_it(
    place: Path, optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "mine.py").touch()
    assert run(["optimize", "../edgewise.toml", "--size-mib", "2", "--task", "mine.py:Mine", "--seed", "3"]) == 0
    call = optimizer.call
    assert call.base.resolve() == place
    assert call.output == Path("runs/model")
    assert call.project.budget == Budget(size_mib=2, flip_rate=0.02)
    assert call.project.task.kind == f"{elsewhere / 'mine.py'}:Mine"
    assert call.project.task.calibrate == "data/calibrate.npz"
    assert call.project.search.seed == 3


@pytest.mark.usefixtures("place")
def test_without_arguments_the_config_of_the_folder_is_taken(optimizer: Optimizer) -> None:
    assert run(["optimize"]) == 0
    assert optimizer.call.project.model.path == "model.onnx"


@pytest.mark.usefixtures("place")
def test_a_torch_module_names_its_folder_after_its_function(optimizer: Optimizer) -> None:
    assert run(["optimize", "nets.small:build", "--data", "data"]) == 0
    assert optimizer.call.output == Path("runs/build")


@pytest.mark.usefixtures("place", "optimizer")
def test_the_table_shows_figures_limits_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MODEL) == 0
    out, err = capsys.readouterr()
    for words in ("placed 2", "1.80x", "runner-up", "latency p99", "pass", "+31%", "1.50 mJ (modelled)"):
        assert words in out
    assert "runs/model/report.html" in out
    assert "runs/model/evidence.json" in out
    assert "1 candidates failed" in out
    assert "calibrate (3) ..." in err
    assert "a note" in err
    assert "\x1b" not in out + err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_the_table_fits_the_terminal(
    optimizer: Optimizer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run(MODEL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(each) for each in lines if "runs/" not in each) <= int(columns)
    assert any("fp32" in each for each in lines)
    assert optimizer.calls


@pytest.mark.usefixtures("place")
def test_nothing_fits_ends_with_3_and_says_what_broke(optimizer: Optimizer, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer.run = nothing_fits()
    assert run(MODEL) == 3
    out = capsys.readouterr().out
    assert "Nothing fits the budget" in out
    assert re.search(r"latency p99 +0\.500 ms +1\.39 ms +fail +-178% +placed 2", out)
    assert re.search(r"flips +2\.00 % +0 % +pass +\+100% +fp32", out)
    assert "try: latency_p99_ms <= 0.5" in out
    assert Path("runs/model/report.html").exists()
    assert run([*MODEL, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["chosen"] is None


@pytest.mark.usefixtures("place")
def test_json_is_the_only_thing_on_stdout(optimizer: Optimizer, capfd: pytest.CaptureFixture[str]) -> None:
    def chatter() -> None:
        sys.stdout.write("from python\n")
        os.write(1, b"from C\n")

    optimizer.act = chatter
    assert run([*MODEL, "--json"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["chosen"]["name"] == "placed 2"
    assert document["budget"]["verdicts"][0]["verdict"] == "pass"
    assert "from python" in err
    assert "from C" in err
    assert "calibrate" not in err


@pytest.mark.usefixtures("place")
def test_names_from_a_model_cannot_steer_the_terminal(optimizer: Optimizer, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer.run = a_run(warnings=("\x1b]0;owned\x07 [red]not markup[/red] [/]",), model="\x1b[2J[bold]m.onnx")
    assert run(MODEL) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]not markup[/red] [/]" in out
    assert "[bold]m.onnx" in out


@pytest.mark.usefixtures("place")
def test_a_refused_run_leaves_nothing_behind(optimizer: Optimizer, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer.error = DataError("calibrate.npz: array 'x' has NaN", required="finite numbers", next_step="clean it")
    assert run([*MODEL, "--output", "a/b/c"]) == 2
    assert not Path("a").exists()
    err = capsys.readouterr().err
    assert "error: calibrate.npz: array 'x' has NaN\nrequired: finite numbers\nnext: clean it\n" in err
    assert "Traceback" not in err


def test_a_refused_run_leaves_an_earlier_run_alone(place: Path, optimizer: Optimizer) -> None:
    assert run(MODEL) == 0
    before = (place / "runs/model/evidence.json").read_bytes()
    optimizer.error = DataError("bad")
    assert run(MODEL) == 2
    assert (place / "runs/model/evidence.json").read_bytes() == before
    assert (place / "runs/model/report.html").exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (ExecutionError("the kernel crashed"), 1, "ExecutionError"),
        (OutputError("the disk is full"), 2, "OutputError"),
        (ZeroDivisionError("division by zero"), 1, "InternalError"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (typer.Abort(), 130, "Interrupted"),
    ],
)
def test_each_way_to_end_has_its_code_and_its_document(
    optimizer: Optimizer, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, kind: str
) -> None:
    optimizer.error = error
    assert run([*MODEL, "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["kind"] == kind
    assert set(json.loads(out)["error"]) == {"kind", "found", "required", "next_step"}
    assert "error:" in err
    assert "Traceback" not in err
    assert Path("runs/model/.edgewise").is_dir()  # what a next run goes on from


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("error", [DataError("bad"), ZeroDivisionError("division by zero")])
def test_debug_shows_the_traceback(
    optimizer: Optimizer, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    optimizer.error = error
    run([*MODEL, "--debug", "--json"])
    out, err = capsys.readouterr()
    assert "Traceback" in err
    assert type(error).__name__ in err
    json.loads(out)


@pytest.mark.usefixtures("place")
def test_an_internal_error_is_one_line_and_points_to_debug(
    optimizer: Optimizer, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer.error = ZeroDivisionError("division\nby\nzero")
    assert run(MODEL) == 1
    err = capsys.readouterr().err
    assert "error: ZeroDivisionError: division\n" in err
    assert "--debug" in err
