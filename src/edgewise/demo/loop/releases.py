"""Three releases of one product, as folders of runs that can be sealed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgewise.contracts.evidence import Figures
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import Chosen, Run
from edgewise.demo import demo_folder
from edgewise.demo.loop.detour import write_detour
from edgewise.errors import ConfigError

PRODUCT = "fashion"
BEFORE, GOOD, BAD = "1.0.0", "1.1.0", "1.2.0"
EVIDENCE, VARIANTS = "evidence.json", "variants"


def write_runs(run: Path, folder: Path) -> dict[str, Path]:
    """Return, by version, the folders of runs to seal: fp32, what `run` chose, and that with a detour.

    Raises ConfigError where nothing fitted the budget.
    """
    found = msgspec.json.decode((run / EVIDENCE).read_bytes(), type=Run)
    if found.chosen is None:
        raise ConfigError(
            "no variant fits the demo's budget on this machine, so there is nothing to roll out",
            required="a variant that fits",
            next_step="run it again on a machine with less to do, or with --devices 0",
        )
    chosen = run / VARIANTS / Path(found.chosen.path or "").name
    fp32 = Chosen(name="fp32", recipe=Recipe(name="fp32", regions=()), **_fields(found.reference))
    detour = Chosen(
        name=f"{found.chosen.name} detour",
        recipe=found.chosen.recipe,
        **_fields(Figures(path=None, runtime=found.chosen.runtime)),  # nobody has measured it
    )
    return {
        BEFORE: _copied(
            run, folder / BEFORE, found, fp32, lambda path: shutil.copyfile(demo_folder() / "model.onnx", path)
        ),
        GOOD: run,
        BAD: _copied(run, folder / BAD, found, detour, lambda path: write_detour(chosen, path, rounds=2)),
    }


def _copied(run: Path, folder: Path, found: Run, chosen: Chosen, write: Callable[[Path], object]) -> Path:
    """Write a run that chose something else; its verification is left out, since it is of another variant."""
    shutil.rmtree(folder, ignore_errors=True)
    leave_out = shutil.ignore_patterns("verification", VARIANTS, "found", "*.html", "fleet")
    shutil.copytree(run, folder, ignore=leave_out)
    path = folder / VARIANTS / "chosen.onnx"
    path.parent.mkdir()
    write(path)
    changed = msgspec.structs.replace(found, chosen=msgspec.structs.replace(chosen, path=str(path)))
    (folder / EVIDENCE).write_bytes(msgspec.json.encode(changed))
    return folder


def _fields(figures: Figures) -> dict[str, Any]:
    return {name: getattr(figures, name) for name in Figures.__struct_fields__}
