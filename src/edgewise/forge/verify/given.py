"""What is to be verified: taken from the folder of a run, or named by the user."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from edgewise.contracts.budget import Budget
from edgewise.contracts.project import ModelConfig, Project, RunProject
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import FORMAT_VERSION, Run
from edgewise.contracts.target import PowerModel, RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.errors import ConfigError, ModelError, TargetError
from edgewise.forge.kept import KEPT
from edgewise.forge.targets import load_target
from edgewise.forge.verify.versions import check_version

EVIDENCE, PROJECT, VARIANTS = "evidence.json", "project.json", "variants"
_MOST_BYTES = 256 << 20
EQUALISED = Path(".edgewise") / "model" / "equalised.onnx"
T = TypeVar("T")


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A variant, the model it was made from, and what it is judged by. Paths are relative to `base`."""

    variant: Path
    reference: ModelConfig
    task: TaskConfig
    base: Path
    budget: Budget = Budget()
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    threads: int = 1
    seed: int = 0
    power: PowerModel | None = None
    recipe: Recipe | None = None
    equalised: Path | None = None
    """fp32 with its channels equalised, where the run started from that; not to be believed unchecked."""
    kept: Path | None = None
    """What calibration data determined of the variant, where the run kept it."""
    model_digest: str | None = None
    """The digest of the reference when the variant was made, where that is known."""
    warnings: tuple[str, ...] = ()


def is_run(folder: Path) -> bool:
    """Return whether a folder holds what `edgewise optimize` writes."""
    return folder.is_dir() and (folder / EVIDENCE).is_file()


def given_by_run(folder: Path) -> Given:
    """Return what a run chose, and how it finds the model and the data again. Raises ConfigError."""
    run = _decoded(folder / EVIDENCE, Run)
    kept = _decoded(folder / PROJECT, RunProject)
    if run.chosen is None:
        raise ConfigError(
            f"{folder}: the run chose no variant, for nothing fits its budget",
            required="a run with a chosen variant",
            next_step="relax the budget and run `edgewise optimize` again, or name a variant file",
        )
    variant = _shipped(folder, run.chosen.path)
    project = kept.project
    warnings: list[str] = []
    try:
        power = load_target(project.target.profile).power
    except TargetError as error:
        power = None
        warnings.append(f"energy is not modelled: {error.found}")
    return Given(
        variant=variant,
        reference=project.model,
        task=project.task,
        base=Path(kept.base),
        budget=project.budget,
        runtime=_runtime(run.chosen.runtime),
        threads=run.environment.threads,
        seed=project.search.seed,
        power=power,
        recipe=run.chosen.recipe,
        equalised=_present(folder / EQUALISED) if run.chosen.recipe.equalise else None,
        kept=_present(folder / KEPT),
        model_digest=run.model_digest,
        warnings=tuple(warnings),
    )


def given_by_project(variant: Path, project: Project, *, base: Path) -> Given:
    """Return a variant file beside the model, task and budget of a config."""
    return Given(
        variant=variant,
        reference=project.model,
        task=project.task,
        base=base,
        budget=project.budget,
        runtime=project.target.runtimes[0] if project.target.runtimes else RuntimeName.ONNXRUNTIME,
        threads=project.target.threads or 1,
        seed=project.search.seed,
    )


def _shipped(folder: Path, path: str | None) -> Path:
    """Return the chosen file: a run that was moved still has it in its own folder."""
    name = Path(path or "").name
    found = folder / VARIANTS / name
    if not name or not found.is_file():
        raise ModelError(
            f"{folder}: the chosen variant {name or '(no name)'} is not in {VARIANTS}/",
            required="the whole folder of a run",
            next_step="run `edgewise optimize` again, or name the variant file with --reference and --data",
        )
    return found


def _present(file: Path) -> Path | None:
    return file if file.is_file() else None


def _runtime(name: str) -> RuntimeName:
    try:
        return RuntimeName(name)
    except ValueError:
        raise ConfigError(f"the run names the runtime {name!r}", required=", ".join(RuntimeName)) from None


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes", required="a document of `edgewise optimize`")
        data = path.read_bytes()
        if kind is Run:
            again = "run `edgewise optimize` again, with this edgewise"
            check_version(data, supported=FORMAT_VERSION, name=str(path), next_step=again)
        return msgspec.json.decode(data, type=kind)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}",
            required="the whole folder of a run of this version",
            next_step="run `edgewise optimize` again, or name the variant file with --reference and --data",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}"[:300],
            required="a document of `edgewise optimize` of this version",
            next_step="run it again",
        ) from error
