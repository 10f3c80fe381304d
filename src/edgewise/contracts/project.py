"""`edgewise.toml` as values. Reading the file and refusing bad ones is `contracts.toml_`."""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig


class Effort(StrEnum):
    """How long the search may look."""

    FAST = "fast"
    DEFAULT = "default"
    THOROUGH = "thorough"


class ModelConfig(Value, kw_only=True):
    """The `[model]` section.

    `path` is an ONNX file, or `package.module:function` that returns a torch.nn.Module.
    `inputs` gives shapes by input name: for a torch module all of them, for an ONNX file those of
    dynamic axes that shall be made static.
    """

    path: str
    inputs: dict[str, tuple[int, ...]] = {}


class TargetConfig(Value, kw_only=True):
    """The `[target]` section: a named profile and what to override of it."""

    profile: str = "local"
    threads: int | None = None
    runtimes: tuple[RuntimeName, ...] | None = None


class SearchConfig(Value, kw_only=True):
    """The `[search]` section."""

    effort: Effort = Effort.DEFAULT
    seed: int = 0
    workers: int | None = None
    """Processes that build and judge candidates; None takes the machine's cores."""


class Project(Value, kw_only=True):
    """A whole edgewise.toml."""

    model: ModelConfig
    task: TaskConfig
    target: TargetConfig = TargetConfig()
    budget: Budget = Budget()
    search: SearchConfig = SearchConfig()


class RunProject(Value, kw_only=True):
    """What a run was asked for, kept in its folder (`project.json`) so that its data is found again."""

    base: str
    """The folder that paths of the project are relative to, as an absolute path."""
    project: Project
