"""Everything a search starts from: the model, the task, the splits and the target, checked against each other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx

from edgewise.contracts.project import Project
from edgewise.contracts.target import RuntimeName, Target
from edgewise.forge.data.labels import Labelled, check_labels, has_integer_labels
from edgewise.forge.data.open import open_dataset
from edgewise.forge.data.split import Subset, split_pool
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import Imported, import_model
from edgewise.forge.regions import Region, regions_of
from edgewise.forge.targets import load_target
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.tasks.classification import Classification
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Runtime, Session

# Set aside from the calibration pool where the user gives no select split of their own.
_SELECT_SHARE = 0.3
_SELECT_MOST = 256


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the search works on. `test` is opened here but not read before the final evidence."""

    imported: Imported
    graph: Graph
    regions: tuple[Region, ...]
    target: Target
    runtime: Runtime
    fp32: Session
    """The user's own model on the target's first runtime: the reference for everything."""
    task: Task
    calibrate: Subset
    select: Subset
    test: Labelled | None
    warnings: tuple[str, ...]

    @property
    def threads(self) -> int:
        """Threads of every session."""
        return self.target.threads


def prepare(project: Project, *, base: Path, work: Path) -> Prepared:
    """Read and check everything. Raises InputError where something cannot be used."""
    target = _target(project)
    execute = runtime(target.runtimes[0])
    imported = import_model(project.model.path, base=base, inputs=project.model.inputs, work=work)
    graph = Graph(onnx.load(str(imported.normalised)))
    fp32 = execute.load(imported.original, threads=target.threads)
    config = project.task
    pool = open_dataset(base / config.calibrate, config=config, inputs=fp32.inputs)
    test = open_dataset(base / config.test, config=config, inputs=fp32.inputs) if config.test else None
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
    calibrate, select = _splits(project, pool, base=base, session=fp32)
    return Prepared(
        imported=imported,
        graph=graph,
        regions=regions_of(graph),
        target=target,
        runtime=execute,
        fp32=fp32,
        task=task,
        calibrate=calibrate,
        select=select,
        test=test,
        warnings=(*imported.notes, *pool.warnings, *(test.warnings if test is not None else ())),
    )


def _target(project: Project) -> Target:
    target = load_target(project.target.profile)
    changes: dict[str, object] = {}
    if project.target.threads is not None:
        changes["threads"] = project.target.threads
    if project.target.runtimes:
        changes["runtimes"] = tuple(RuntimeName(each) for each in project.target.runtimes)
    return msgspec.structs.replace(target, **changes) if changes else target


def _splits(project: Project, pool: Labelled, *, base: Path, session: Session) -> tuple[Subset, Subset]:
    config, seed = project.task, project.search.seed
    if config.select is not None:
        select = open_dataset(base / config.select, config=config, inputs=session.inputs)
        return _at_most(pool, range(len(pool)), config.samples, seed), _at_most(
            select, range(len(select)), _SELECT_MOST, seed
        )
    if len(pool) == 1:
        return Subset(pool, [0]), Subset(pool, [0])
    mine, aside = split_pool(len(pool), share=_SELECT_SHARE, seed=seed)
    return _at_most(pool, mine, config.samples, seed), _at_most(pool, aside, _SELECT_MOST, seed)


def _at_most(dataset: Labelled, indices: range | tuple[int, ...], limit: int, seed: int) -> Subset:
    """Return a view of at most `limit` samples, spread over all of them."""
    if len(indices) <= limit:
        return Subset(dataset, tuple(indices))
    kept, _ = split_pool(len(indices), share=1 - limit / len(indices), seed=seed)
    return Subset(dataset, tuple(indices[at] for at in kept[:limit]))
