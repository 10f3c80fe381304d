from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from edgewise.cli import job
from edgewise.cli.main import run
from edgewise.cli.progress import drawn
from edgewise.demo import demo_folder
from edgewise.forge.progress import Silent
from tests.unit.cli.conftest import Optimizer
from tests.unit.cli.models import small
from tests.unit.report.verifications import verification
from tests.unit.runtimes.models import serialised


@pytest.fixture
def _verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_verified", lambda output, **_: verification())  # noqa: ARG005


@pytest.mark.usefixtures("_verified")
def test_demo_runs_on_the_packaged_model(optimizer: Optimizer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--devices", "0"]) == 0
    assert optimizer.call.base == demo_folder()
    assert optimizer.call.output == Path("runs/demo")
    assert optimizer.call.project.budget.limits()
    assert (demo_folder() / optimizer.call.project.model.path).is_file()
    out = capsys.readouterr().out
    assert "runs/demo/report.html" in out
    assert "runs/demo/verification/verification.html" in out
    assert "verification/verification.html" in Path("runs/demo/report.html").read_text()


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "list"]) == 0
    assert "raspberry-pi-5" in capsys.readouterr().out
    assert run(["targets", "list", "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)["targets"]]
    assert names[0] == "local"


def test_this_machine_is_probed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["targets", "probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["probe"]["fp32_gmacs"] > 0
    assert run(["targets", "probe"]) == 0
    assert "GMAC/s" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_inspect_counts_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "model.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == 16 * 16 * 32 * (3 * 9) + 16 * 16 * 32 * (32 * 9)
    assert found["parameters"] == 32 * 3 * 9 + 32 + 32 * 32 * 9 + 32
    # While the second convolution (or the Add) runs, three tensors of [32, 16, 16] are live at most.
    assert 2 * 32 * 256 * 4 <= found["peak_activation_bytes"] <= 3 * 32 * 256 * 4 + 3 * 256 * 4
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 16, 16]}]
    assert found["operators"]["Conv"] == 2
    assert "int8_static" in found["regions"][0]["formats"]
    assert run(["inspect", "model.onnx"]) == 0
    out = capsys.readouterr().out
    assert "2.58 M per inference" in out
    assert "conv" in out


def test_what_a_dynamic_axis_leaves_open_is_unknown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small()
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_param, shape.dim[3].dim_param = "height", "width"
    (place / "dynamic.onnx").write_bytes(serialised(model))
    assert run(["inspect", "dynamic.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] is None
    assert found["peak_activation_bytes"] is None
    assert run(["inspect", "dynamic.onnx"]) == 0
    assert "MACs        unknown" in capsys.readouterr().out
    assert run(["inspect", "dynamic.onnx", "--json", "--input", "x=1,3,16,16"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] > 0


def test_a_terminal_gets_a_bar_per_phase_with_what_is_left() -> None:
    screen = io.StringIO()
    with drawn(Console(file=screen, force_terminal=True, width=100), quiet=True) as progress:
        progress.start("import", None)
        progress.start("calibrate [/] \x1b[2J", 4)
        progress.advance(3)
        progress.note("a [note]")
    shown = screen.getvalue()
    assert "calibrate [/] \\x1b[2J" in shown
    assert "4/4" in shown
    assert "a [note]" in shown


def test_a_log_gets_lines_and_json_in_a_pipe_gets_none() -> None:
    log = io.StringIO()
    with drawn(Console(file=log, width=100), quiet=False) as progress:
        progress.start("calibrate", 4)
        progress.advance(4)
    assert log.getvalue() == "calibrate (4) ...\n"
    with drawn(Console(file=log, width=100), quiet=True) as progress:
        assert isinstance(progress, Silent)
