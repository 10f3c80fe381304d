"""From arguments to what is to be verified: a run, or a variant beside a model and a data folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgewise.bundle.names import MANIFEST
from edgewise.cli.project import Arguments, overridden, read_config
from edgewise.contracts.project import ModelConfig, Project
from edgewise.contracts.task import TaskConfig
from edgewise.errors import ConfigError, ModelError
from edgewise.forge.data.folder import resolve_folder
from edgewise.forge.importing.locate import Module, locate
from edgewise.forge.verify.baseline import FOLDER
from edgewise.forge.verify.given import EVIDENCE, Given, given_by_project, given_by_run, is_run

_BUNDLE = ".edgewise"


def given_of(arguments: Arguments, *, reference: str | None, config: str | None, cwd: Path) -> Given:
    """Return what is to be verified, with what was typed in its place.

    Raises InputError where something is missing or of the wrong kind, or an option holds what it may not.
    """
    subject = arguments.subject or ""
    path = cwd / subject
    if path.suffix == _BUNDLE or (path / MANIFEST).is_file():
        raise ConfigError(
            f"{subject} is a bundle: neither test data nor how it was made are in it",
            required="the run that it was sealed from, or one of its variants with model and data",
            next_step="name the run; or `edgewise bundle extract` it, and name an .onnx file with --reference, --data",
        )
    if is_run(path):
        if config is not None:
            raise ConfigError(
                f"--config {config} together with the run {subject}",
                required="one or the other: a run keeps its own config",
                next_step="leave out --config, or name the variant file instead of the run",
            )
        given = given_by_run(path)
        whole = Project(model=given.reference, task=given.task, budget=given.budget)
    else:
        variant = _variant(subject, cwd=cwd)
        whole, base = _project(variant, arguments, reference=reference, config=config, cwd=cwd)
        given = given_by_project(variant, whole, base=base)
    typed = overridden(whole, arguments, cwd=cwd)
    given = msgspec.structs.replace(given, budget=typed.budget, task=typed.task)
    if reference is not None:
        given = msgspec.structs.replace(given, reference=ModelConfig(path=_absolute(reference, cwd)), model_digest=None)
    if arguments.data is not None:
        given = msgspec.structs.replace(
            given, task=resolve_folder(cwd / arguments.data, config=given.task, required="test")
        )
    if arguments.runtimes:
        given = msgspec.structs.replace(given, runtime=arguments.runtimes[0])
    if arguments.threads is not None:
        given = msgspec.structs.replace(given, threads=arguments.threads)
    if arguments.seed is not None:
        given = msgspec.structs.replace(given, seed=arguments.seed)
    locate(given.reference.path, base=given.base)  # refused here, before there is an output folder
    return given


def default_folder(subject: Path) -> Path:
    """Return where a verification is written unless the user says otherwise."""
    return subject / FOLDER if is_run(subject) else Path("runs") / f"{subject.stem}-{FOLDER}"


def _variant(subject: str, *, cwd: Path) -> Path:
    if (cwd / subject).is_dir():
        raise ConfigError(
            f"{subject} is a folder without {EVIDENCE}",
            required="the folder of a run of `edgewise optimize`, or a variant file",
            next_step="run `edgewise optimize` into it first, or name the .onnx file",
        )
    found = locate(subject, base=cwd)
    if isinstance(found, Module):
        raise ModelError(
            f"the variant {subject} is a torch module",
            required="an ONNX file: what ships is verified, not what it was made from",
            next_step="name the variant file, and the module as --reference",
        )
    return found


def _project(
    variant: Path, arguments: Arguments, *, reference: str | None, config: str | None, cwd: Path
) -> tuple[Project, Path]:
    """Return the project around a bare variant, and the folder its paths are relative to."""
    if config is not None:
        return read_config(cwd / config, source=config), (cwd / config).parent.absolute()
    missing = [
        option for option, value in (("--reference MODEL", reference), ("--data DIR", arguments.data)) if value is None
    ]
    if reference is None or arguments.data is None:
        raise ConfigError(
            f"the variant {variant.name} without {' and '.join(missing)}",
            required="the fp32 model it was made from and a folder with test.npz; or --config edgewise.toml",
            next_step=f"edgewise verify {arguments.subject} --reference MODEL --data DIR",
        )
    task: TaskConfig = resolve_folder(cwd / arguments.data, required="test")
    return Project(model=ModelConfig(path=reference), task=task), cwd


def _absolute(reference: str, cwd: Path) -> str:
    found = locate(reference, base=cwd)
    return reference if isinstance(found, Module) else str(found)
