"""The built wheel, alone with the base dependencies: what a device gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"onnx", "scipy", "torch", "typer", "rich", "plotly", "ray", "openvino", "PIL", "soundfile", "tokenizers"}
PROBE = """
import importlib, json, pathlib, pkgutil, sys
import edgewise, edgewise.device
device = sorted(sys.modules)
for place in ("contracts", "numerics", "keys", "runtimes", "bundle", "device"):
    package = importlib.import_module(f"edgewise.{place}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(json.dumps({"file": edgewise.__file__, "device": device, "all": sorted(sys.modules)}))
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("edgewise-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter with nothing installed but the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def loaded(python: Path) -> dict[str, set[str]]:
    """Return the top-level modules in a process of that interpreter."""
    found = json.loads(run(python, "-c", PROBE))
    assert Path(found["file"]).is_relative_to(python.parents[1])
    return {key: {name.partition(".")[0] for name in found[key]} for key in ("device", "all")}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"edgewise", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert "edgewise/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "edgewise/fleet/console/app.js" in names
    demo = {path.name for path in (ROOT / "src" / "edgewise" / "demo").iterdir() if path.is_file()}
    assert demo <= {name.removeprefix("edgewise/demo/") for name in names}


def test_a_device_loads_nothing_of_the_workstation(loaded: dict[str, set[str]]) -> None:
    assert "edgewise" in loaded["device"]
    assert loaded["device"] & HEAVY == set()


def test_what_a_device_is_built_on_needs_only_the_base(loaded: dict[str, set[str]]) -> None:
    assert {"numpy", "onnxruntime", "msgspec"} <= loaded["all"]
    assert loaded["all"] & HEAVY == set()


def test_the_command_without_its_extra_says_which_to_install(python: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python.with_name("edgewise")), "targets", "list"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "edgewise[forge]" in done.stderr
    assert "Traceback" not in done.stderr
