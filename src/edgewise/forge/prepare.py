"""Everything a search starts from: the model, the task, the splits and the target, checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx

from edgewise.contracts.evidence import Figures
from edgewise.contracts.project import Project
from edgewise.contracts.target import RuntimeName, Target
from edgewise.contracts.task import TaskConfig
from edgewise.errors import DataError
from edgewise.forge.data.labels import Labelled, check_labels, has_integer_labels
from edgewise.forge.data.leakage import leakage
from edgewise.forge.data.open import CALIBRATE, SELECT, TEST, open_split
from edgewise.forge.data.split import Subset, at_most, split_pool
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import Imported
from edgewise.forge.measure.lab import Here, Lab
from edgewise.forge.measure.size import size_mib
from edgewise.forge.regions import Region, regions_of
from edgewise.forge.targets import load_target
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.tasks.embedding import Pair
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Runtime, Session

# Set aside from the calibration pool where the user gives no select split of their own.
_SELECT_SHARE = 0.3
ALL, SPREAD = "all", "spread"


class Limits(msgspec.Struct, frozen=True):
    """How many samples of each split are kept at most, spread over it."""

    select: int
    judged: int
    """A smaller select split that was set aside here is filled up to so many from the rest of the pool."""
    test: int | None
    """None keeps all."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the search works on. `test` is opened here but not read before the final evidence."""

    imported: Imported
    graph: Graph
    regions: tuple[Region, ...]
    target: Target
    runtime: Runtime
    fp32: Session
    """The user's own model on the target's first runtime: the reference for everything."""
    further: tuple[Runtime, ...] = ()
    """The other runtimes that the user names: fp32 and the shortlist are candidates on each of them too."""
    lab: Lab
    """Where candidates are timed."""
    task: Task
    calibrate: Subset
    selection: str
    """How the calibration samples were taken from the pool: `all`, or `spread` (a seeded random part; ADR 8)."""
    select: Subset
    judged: Subset
    """What candidates are judged on: the select split, filled up from the pool where it is small."""
    test: Labelled | None
    notes: tuple[str, ...]
    """What import changed in the model."""
    warnings: tuple[str, ...]
    any_size: bool = True
    """Whether the budget leaves the size of the file open."""
    too_large: bool = False
    """Whether fp32 is larger than the budget allows."""

    @property
    def threads(self) -> int:
        """Threads of every session."""
        return self.target.threads

    def executing(self, candidate: Figures) -> Runtime:
        """Return the runtime that a candidate runs on."""
        return next(each for each in (self.runtime, *self.further) if each.name == candidate.runtime)


def prepare(project: Project, *, base: Path, imported: Callable[[], Imported], limits: Limits) -> Prepared:
    """Read and check everything; `imported` waits for the model. Raises InputError where something cannot be used."""
    target = _target(project)
    execute = runtime(target.runtimes[0])
    # Only those that the user names: a profile lists what such a device may have, and what is installed here is chance.
    further = tuple(runtime(each) for each in target.runtimes[1:]) if project.target.runtimes else ()
    for each in further:
        each.version()  # refuses one that is not installed before anything else takes time
    model = imported()
    graph = Graph(onnx.load(str(model.normalised)))
    fp32 = execute.load(model.original, threads=target.threads)
    config, most_mib = project.task, project.budget.size_mib
    pool = _opened(CALIBRATE, config, fp32, base)
    test = open_split(TEST, config=config, inputs=fp32.inputs, folder=base)
    labelled = test if test is not None and test.targets is not None else pool
    task = choose_task(
        config.kind,
        config=config,
        outputs=fp32.outputs,
        inputs=fp32.inputs,
        has_labels=labelled.targets is not None,
        folder=base,
        integer_labels=has_integer_labels(labelled),
    )
    if isinstance(task, Classification):
        for split in (pool, test):
            if split is not None and split.targets is not None:
                check_labels(split, classes=task.classes)
    calibrate, select, judged, selection = _splits(project, pool, base=base, session=fp32, limits=limits)
    final = _part(test, limits.test, seed=project.search.seed)
    shared = leakage(pool, final) if final is not None else None
    told = getattr(task, "note", "")
    return Prepared(
        imported=model,
        graph=graph,
        regions=regions_of(graph),
        target=target,
        runtime=execute,
        further=further,
        fp32=fp32,
        lab=Here(),
        task=task,
        calibrate=calibrate,
        selection=selection,
        select=select,
        judged=judged,
        test=final,
        notes=model.notes,
        any_size=most_mib is None,
        too_large=most_mib is not None and size_mib(model.original) > most_mib,
        warnings=tuple(
            dict.fromkeys(filter(None, (told, shared, *pool.warnings, *(test.warnings if test is not None else ()))))
        ),
    )


def _target(project: Project) -> Target:
    target = load_target(project.target.profile)
    changes: dict[str, object] = {}
    if project.target.threads is not None:
        changes["threads"] = project.target.threads
    if project.target.runtimes:
        changes["runtimes"] = tuple(RuntimeName(each) for each in project.target.runtimes)
    return msgspec.structs.replace(target, **changes) if changes else target


def _opened(split: str, config: TaskConfig, session: Session, base: Path) -> Labelled:
    found = open_split(split, config=config, inputs=session.inputs, folder=base)
    if found is None:
        raise DataError(f"no {split} split is given", required=f"[task] {split}", next_step="add it to the config")
    return found


def _splits(
    project: Project, pool: Labelled, *, base: Path, session: Session, limits: Limits
) -> tuple[Subset, Subset, Subset, str]:
    """Return calibration samples and select split (apart), what to judge on, and how the first were taken.

    A select split of the user's own is judged on alone. One set aside here may be too small to tell candidates
    apart: then samples that ranges were fitted to help, which by measurement flatters no method over another.
    """
    config, seed = project.task, project.search.seed
    group = _group(pool)
    select = open_split(SELECT, config=config, inputs=session.inputs, folder=base)
    if select is not None:
        mine, aside = tuple(range(len(pool))), tuple(range(len(select)))
    elif len(pool) == 1:
        mine, aside, select = (0,), (0,), pool
    else:
        mine, aside = split_pool(len(pool), share=_SELECT_SHARE, seed=seed, group=group)
        select = pool
    aside = at_most(aside, limits.select, seed=seed, group=group)
    judged = aside
    if select is pool and len(aside) < limits.judged and len(pool) > 1:
        judged = (*aside, *at_most(mine, limits.judged - len(aside), seed=seed, group=group))
    return (
        Subset(pool, at_most(mine, config.samples, seed=seed, group=group)),
        Subset(select, aside),
        Subset(select, judged),
        ALL if len(mine) <= config.samples else SPREAD,
    )


def _part(split: Labelled | None, limit: int | None, *, seed: int) -> Labelled | None:
    if split is None or limit is None or len(split) <= limit:
        return split
    return Subset(split, at_most(tuple(range(len(split))), limit, seed=seed, group=_group(split)))


def _group(split: Labelled) -> int:
    """Return how many consecutive samples belong together: two of a pair."""
    return 2 if split.targets is not None and len(split) and isinstance(split.targets[0], Pair) else 1
