"""The import contracts hold, and each fails when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sysconfig.get_path("scripts"))

LAYERS = "layers: a file imports only from its own line or a lower one"
INDEPENDENCE = "independence: forge, fleet and device meet only in contracts"
DEVICE = "a device needs no workstation"
CONTRACTS = "contracts are values: no arrays, no models, no database, no I/O"
CYCLES = "no cycles between siblings"

# (file below src/edgewise, a line to plant in it, the contract that must break, what its message must name)
BREACHES = {
    "a lower layer imports a higher one": ("runtimes/planted.py", "import edgewise.forge", LAYERS, "runtimes.planted"),
    "errors import contracts": ("errors.py", "import edgewise.contracts.units", LAYERS, "contracts.units"),
    "a top-level module outside the layers": ("planted.py", "", LAYERS, "planted"),
    "forge imports fleet": ("forge/planted.py", "import edgewise.fleet", INDEPENDENCE, "forge.planted"),
    "fleet imports device": ("fleet/planted.py", "import edgewise.device", INDEPENDENCE, "fleet.planted"),
    "device imports onnx": ("device/planted.py", "import onnx", DEVICE, "device.planted -> onnx"),
    "device reaches scipy through runtimes": ("runtimes/base.py", "import scipy.optimize", DEVICE, "base -> scipy"),
    "device imports torch inside a function": (
        "device/planted.py",
        "def late() -> None:\n    import torch",
        DEVICE,
        "device.planted -> torch",
    ),
    "contracts import numpy": ("contracts/planted.py", "import numpy as np", CONTRACTS, "contracts.planted -> numpy"),
    "contracts read files": ("contracts/toml_.py", "from pathlib import Path", CONTRACTS, "toml_ -> pathlib"),
    "two siblings import each other": (
        "contracts/evidence.py",
        "import edgewise.contracts.budget",
        CYCLES,
        "No cycles are allowed in edgewise.contracts",
    ),
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a copy of the package with its configuration."""
    shutil.copytree(
        ROOT / "src" / "edgewise",
        tmp_path / "src" / "edgewise",
        ignore=shutil.ignore_patterns("__pycache__", "*.npz", "*.onnx"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "edgewise" / "device" / "uses.py").write_text("import edgewise.runtimes.base\n")
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / "lint-imports", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def plant(house: Path, file: str, line: str) -> None:
    target = house / "src" / "edgewise" / file
    with target.open("a", encoding="utf-8") as out:
        out.write(f"\n{line}\n")


def test_every_contract_is_kept(house: Path) -> None:
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("file", "line", "contract", "named"), BREACHES.values(), ids=BREACHES)
def test_a_planted_breach_is_found(house: Path, file: str, line: str, contract: str, named: str) -> None:
    plant(house, file, line)
    done = lint_imports(house)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout, done.stdout + done.stderr
    assert named in done.stdout.split("Broken contracts")[1]


@pytest.mark.parametrize("line", ["import importlib", "from importlib import import_module", "import pickle"])
def test_hidden_imports_and_pickles_are_found(house: Path, line: str) -> None:
    plant(house, "numerics/planted.py", line)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "src/edgewise"]
    done = subprocess.run(command, cwd=house, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "planted.py" in done.stdout


def test_no_hidden_import_is_excused() -> None:
    excused = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.py")
        if "noqa: TID251" in path.read_text(encoding="utf-8")
    ]
    assert excused == []
