"""From arguments to a `Project`: a config and what the command line overrides of it, or a model and a data folder."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project
from edgewise.contracts.rules import RULES, Rule, converted
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.toml_ import parse_project
from edgewise.errors import ConfigError, DataError, ModelError

CONFIG = "edgewise.toml"
MOST_CONFIG_BYTES = 1_000_000
T = TypeVar("T")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


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
    limits = {name: _limit(name, text) for name, text in arguments.limits.items()}
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
        project, base = _read(cwd / subject, source=subject), (cwd / subject).parent
    else:
        project, base = _bare(subject, arguments.data, cwd=cwd), cwd
    project = _overridden(project, arguments, limits, cwd=cwd)
    check_model(project.model.path, base=base)
    return project, base


def check_model(path: str, *, base: Path) -> None:
    """Refuse a model path that is nothing: before any work, and with the nearest file that exists."""
    found = base / path
    if found.is_file() or _MODULE.fullmatch(path):
        return
    required = "an ONNX file, or package.module:function that returns a torch module"
    if found.is_dir():
        inside = sorted(each.name for each in found.glob("*.onnx"))
        next_step = f"name a file in it: {', '.join(inside[:3])}" if inside else "name a file"
        raise ModelError(f"the model {path} is a folder", required=required, next_step=next_step)
    names = [each.name for each in found.parent.iterdir() if each.is_file()] if found.parent.is_dir() else []
    near = difflib.get_close_matches(found.name, names, n=1)
    next_step = f"did you mean {Path(path).with_name(near[0])}?" if near else "check the path"
    raise ModelError(f"the model {path} does not exist", required=required, next_step=next_step)


def stem(model: str) -> str:
    """Return a name for a model's run folder.

    >>> stem("zoo/resnet8.onnx"), stem("package.module:build")
    ('resnet8', 'build')
    """
    return model.rpartition(":")[2] if _MODULE.fullmatch(model) else Path(model).stem


def _read(path: Path, *, source: str) -> Project:
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
    check_model(model, base=cwd)
    if data is None:
        raise ConfigError(
            f"the model {model} without data",
            required="--data DIR, a folder with calibrate.npz and, to prove the result, test.npz",
            next_step=f"edgewise optimize {model} --data DIR",
        )
    folder = cwd / data
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"the data folder {data} {what}",
            required="a folder with calibrate.npz and, to prove the result, test.npz",
            next_step="check the path" if not folder.exists() else f"write --data {Path(data).parent}",
        )
    splits = {split: found for split in ("calibrate", "select", "test") if (found := _split(folder, split)) is not None}
    if "calibrate" not in splits:
        inside = sorted(each.name for each in folder.iterdir())
        raise DataError(
            f"the data folder {data} holds {', '.join(inside[:5]) or 'nothing'}",
            required="calibrate.npz, or a table or folder of that name",
            next_step="write the samples with numpy.savez('calibrate.npz', x=...)",
        )
    return Project(model=ModelConfig(path=model), task=TaskConfig(**splits))


def _split(folder: Path, split: str) -> str | None:
    for name in (f"{split}.npz", f"{split}.csv", f"{split}.tsv", split):
        if (folder / name).exists():
            return str(folder / name)
    return None


def _overridden(project: Project, arguments: Arguments, limits: Mapping[str, float], *, cwd: Path) -> Project:
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
    budget = Budget(**(project.budget.limits() | limits))
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
        value: object = float(text)
    except ValueError:
        value = text
    return float(_checked(option, ("budget", name), value, advice=_converted(rule, option, text)))


def _converted(rule: Rule, option: str, text: str) -> str:
    number = converted(rule, text)
    return "" if number is None else f"write {option} {number:g}"


def _checked(option: str, key: tuple[str, ...], value: T, *, advice: str = "") -> T:
    """Return the value, or raise ConfigError with the rule of its key in edgewise.toml."""
    rule = RULES[key]
    if rule.holds(value):
        return value
    words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    near = [match for word in words for match in difflib.get_close_matches(word.lower(), rule.choices, n=1)]
    if not advice:
        advice = f"did you mean {near[0]}?" if near and near[0] not in words else "write such a value, or leave it out"
    raise ConfigError(f"{option} {' '.join(words)}", required=rule.words, next_step=advice)
