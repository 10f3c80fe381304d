"""The installed command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewise import __version__
from edgewise.cli.main import app

COMMAND = [sys.executable, "-c", "from edgewise.cli.main import main; main()"]
HEAVY = {"numpy", "onnx", "onnxruntime", "scipy", "PIL", "torch", "openvino"}


def edgewise(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "verb", [(), ("optimize",), ("inspect",), ("demo",), ("targets",), ("targets", "probe"), ("data",)]
)
def test_help_shows_examples(verb: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "110", "TERM": "dumb"})
    assert result.exit_code == 0
    assert "edgewise" in result.output
    assert "[bold]" not in result.output
    if verb and verb != ("targets", "probe"):
        assert "Examples" in result.output


def test_help_of_optimize_names_every_option() -> None:
    output = CliRunner().invoke(app, ["optimize", "--help"], env={"COLUMNS": "160", "TERM": "dumb"}).output
    for option in ("data", "target", "task", "output", "effort", "threads", "seed", "workers", "cluster", "runtime"):
        assert f"--{option}" in output
    for option in ("latency-p50-ms", "latency-p99-ms", "peak-memory-mib", "size-mib", "energy-mj", "accuracy-drop"):
        assert f"--{option}" in output
    for option in ("flip-rate", "json", "fresh", "debug"):
        assert f"--{option}" in output
    assert "edgewise[cluster]" in output
    assert "130 stopped" in output


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from edgewise.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(result.stderr.split())


def test_version() -> None:
    result = edgewise("--version")
    assert (result.returncode, result.stdout) == (0, f"edgewise {__version__}\n")


def test_completion_can_be_shown() -> None:
    result = edgewise("optimize", _EDGEWISE_COMPLETE="complete_bash", COMP_WORDS="edgewise opt", COMP_CWORD="1")
    assert "optimize" in result.stdout


def test_no_verb_shows_help_and_is_an_error() -> None:
    result = edgewise()
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away_is_no_fault() -> None:
    command = " ".join([f"'{each}'" for each in COMMAND])
    result = subprocess.run(
        ["bash", "-c", f"{command} targets list | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_an_encoding_without_signs_is_no_fault(place: Path) -> None:
    result = edgewise("inspect", "model.onnx", cwd=place, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 0, result.stderr


def test_colours_are_for_terminals_that_want_them(place: Path) -> None:
    coloured = edgewise("optimize", "gone.onnx", cwd=place, FORCE_COLOR="1", NO_COLOR="")
    plain = edgewise("optimize", "gone.onnx", cwd=place, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[1;31m" in coloured.stderr
    assert "\x1b[1;31m" not in plain.stderr
    assert "31m" not in plain.stderr


@pytest.mark.slow
def test_a_model_without_a_config_is_optimized(place: Path) -> None:
    result = edgewise(
        "optimize", "model.onnx", "--data", "data", "--effort", "fast", "--output", "out", "--json", cwd=place
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["chosen"]["speedup"] >= 1
    assert Path(document["chosen"]["path"]).is_file()
    assert (place / "out" / "report.html").is_file()
    assert json.loads((place / "out" / "evidence.json").read_bytes())["chosen"]["name"] == document["chosen"]["name"]


@pytest.mark.slow
def test_an_impossible_budget_ends_with_3(place: Path) -> None:
    result = edgewise("optimize", "model.onnx", "--data", "data", "--effort", "fast", "--size-mib", "0.0001", cwd=place)
    assert result.returncode == 3, result.stderr
    assert "Nothing fits the budget" in result.stdout


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_keeps_what_was_found(place: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "optimize", "model.onnx", "--data", "data", "--effort", "thorough"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("calibrate"):
                time.sleep(0.1)
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130, "".join(lines) + rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert (place / "runs" / "model" / ".edgewise").is_dir()
