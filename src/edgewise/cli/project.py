"""From arguments to a `Project`: a config and what the command line overrides of it, or a model and a data folder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project
from edgewise.contracts.rules import RULES, converted
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.toml_ import parse_project
from edgewise.errors import ConfigError
from edgewise.forge.data.folder import resolve_folder
from edgewise.forge.importing.locate import locate

CONFIG = "edgewise.toml"
MOST_CONFIG_BYTES = 1_000_000
T = TypeVar("T")


class Arguments(Value, kw_only=True):
    """What the user typed; None and empty where nothing was."""

    subject: str | None = None
    """The config or the model."""
    data: str | None = None
    target: str | None = None
    task: str | None = None
    effort: Effort | None = None
    threads: int | None = None
    seed: int | None = None
    workers: int | None = None
    runtimes: tuple[RuntimeName, ...] = ()
    limits: Mapping[str, str] = {}
    """Limits of the budget by name, as typed."""


def project_of(arguments: Arguments, *, cwd: Path) -> tuple[Project, Path]:
    """Return the project and the folder its paths are relative to.

    Raises InputError where a file is missing or of the wrong kind, an option holds what it may not,
    or two options contradict each other.
    """
    for name, text in arguments.limits.items():
        _limit(name, text)
    subject = arguments.subject
    if subject is None:
        if not (cwd / CONFIG).is_file():
            raise ConfigError(
                f"neither a config nor a model was named, and there is no {CONFIG} in {cwd}",
                required="edgewise optimize CONFIG.toml, or edgewise optimize MODEL --data DIR",
                next_step="edgewise demo shows a whole run; edgewise optimize --help lists the options",
            )
        subject = CONFIG
    if subject.endswith(".toml"):
        if arguments.data is not None:
            raise ConfigError(
                f"--data {arguments.data} together with {subject}",
                required="one or the other: a config names its own data",
                next_step="leave out --data, or name the model instead of the config",
            )
        project, base = read_config(cwd / subject, source=subject), (cwd / subject).parent
    else:
        project, base = _bare(subject, arguments.data, cwd=cwd), cwd
    project = overridden(project, arguments, cwd=cwd)
    locate(project.model.path, base=base)  # refused here, before there is an output folder
    return project, base


def stem(model: str) -> str:
    """Return a name for a model's run folder.

    >>> stem("zoo/resnet8.onnx"), stem("package.module:build")
    ('resnet8', 'build')
    """
    return model.rpartition(":")[2] if ":" in model else Path(model).stem


def read_config(path: Path, *, source: str) -> Project:
    """Return a config as values. Raises ConfigError where it cannot be read, or holds what it may not."""
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            raise ConfigError(f"{source} has {path.stat().st_size} bytes", required="a config, some lines of TOML")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the config {source} cannot be read: {error.strerror}", required="a file", next_step="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the config {source} is not UTF-8 text", required="TOML, which is UTF-8") from error
    return parse_project(text, source=source)


def _bare(model: str, data: str | None, *, cwd: Path) -> Project:
    locate(model, base=cwd)
    if data is None:
        raise ConfigError(
            f"the model {model} without data",
            required="--data DIR, a folder with calibrate.npz and, to prove the result, test.npz",
            next_step=f"edgewise optimize {model} --data DIR",
        )
    return Project(model=ModelConfig(path=model), task=resolve_folder(cwd / data))


def overridden(project: Project, arguments: Arguments, *, cwd: Path) -> Project:
    """Return a project with what was typed in its place. Raises ConfigError where an option holds what it may not."""
    limits = {name: _limit(name, text) for name, text in arguments.limits.items()}
    replace = msgspec.structs.replace
    task, target, search = project.task, project.target, project.search
    if arguments.task is not None:
        task = replace(task, kind=_kind(arguments.task, cwd=cwd))
    if arguments.target is not None:
        target = replace(target, profile=_target(arguments.target, cwd=cwd))
    if arguments.threads is not None:
        target = replace(target, threads=_checked("--threads", ("target", "threads"), arguments.threads))
    if arguments.runtimes:
        _checked("--runtime", ("target", "runtimes"), list(arguments.runtimes))
        target = replace(target, runtimes=arguments.runtimes)
    if arguments.effort is not None:
        search = replace(search, effort=arguments.effort)
    if arguments.seed is not None:
        search = replace(search, seed=_checked("--seed", ("search", "seed"), arguments.seed))
    if arguments.workers is not None:
        search = replace(search, workers=_checked("--workers", ("search", "workers"), arguments.workers))
    budget = Budget(**{**project.budget.limits(), **limits})
    return replace(project, task=task, target=target, search=search, budget=budget)


def _kind(text: str, *, cwd: Path) -> str:
    """Return the task's kind; a file named here is relative to where the user stands, not to the config."""
    _checked("--task", ("task", "kind"), text)
    file, colon, name = text.rpartition(":")
    return f"{cwd / file}:{name}" if colon else text


def _target(text: str, *, cwd: Path) -> str:
    _checked("--target", ("target", "profile"), text)
    return str(cwd / text) if text.endswith(".toml") else text


def _limit(name: str, text: str) -> float:
    option, rule = f"--{name.replace('_', '-')}", RULES["budget", name]
    try:
        value = float(text)
    except ValueError:  # not a number, though it may be one with a unit
        number = converted(rule, text)
        advice = "write a plain number" if number is None else f"write {option} {number:g}"
        raise ConfigError(f"{option} {text}", required=rule.words, next_step=advice) from None
    return _checked(option, ("budget", name), value)


def _checked(option: str, key: tuple[str, ...], value: T) -> T:
    """Return the value, or raise ConfigError with the rule of its key in edgewise.toml."""
    rule = RULES[key]
    if rule.holds(value):
        return value
    words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    near = [match for word in words for match in difflib.get_close_matches(word.lower(), rule.choices, n=1)]
    advice = f"did you mean {near[0]}?" if near and near[0] not in words else "write such a value, or leave it out"
    raise ConfigError(f"{option} {' '.join(words)}", required=rule.words, next_step=advice)
