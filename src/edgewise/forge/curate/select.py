"""`edgewise data select`: calibration samples from a pool, chosen by what they make the model do."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from edgewise.contracts.curation import Method, Picked, Selection
from edgewise.contracts.task import TaskConfig
from edgewise.forge.curate.choose import choose, compare, coverage, elements, range_shares
from edgewise.forge.curate.observe import MOST_SAMPLES, grouped, observe
from edgewise.forge.curate.pool import open_pool
from edgewise.forge.curate.write import check_output, write_selection
from edgewise.forge.data.split import at_most
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.progress import Progress
from edgewise.forge.regions import regions_of
from edgewise.forge.targets import load_target
from edgewise.runtimes import runtime


def select(  # noqa: PLR0913 - the options of the command
    pools: Sequence[Path],
    *,
    model: str,
    config: TaskConfig,
    base: Path,
    method: Method,
    seed: int,
    output: Path,
    threads: int,
    progress: Progress,
) -> Selection:
    """Choose `config.samples` samples of `pools`, write them to `output` and say how well they stand for the pools.

    fp32 is run on at most `MOST_SAMPLES` of them, spread over all. Raises InputError and OutputError.
    """
    execute = runtime(load_target("local").runtimes[0])
    with tempfile.TemporaryDirectory(prefix="edgewise-select-") as folder:
        progress.start("import", None)
        imported = import_model(model, base=base, inputs={}, work=Path(folder))
        graph = Graph(onnx.load(str(imported.normalised)))
        inputs = execute.load(imported.original, threads=threads).inputs
        pool = open_pool(pools, config=config, inputs=inputs)
        check_output(pools, output)
        group = pool.group
        indices = at_most(tuple(range(len(pool))), MOST_SAMPLES, seed=seed, group=group)
        progress.start("observe fp32", len(indices))
        seen = observe(
            graph,
            regions_of(graph),
            pool,
            indices,
            runtime=execute,
            threads=threads,
            group=group,
            progress=progress.advance,
        )
    together = grouped(seen, group)
    count = max(1, config.samples // group)
    progress.start("choose", None)
    found = elements(together)
    rows = choose(together, count, method=method, seed=seed, found=found)
    samples = [together.indices[row] + step for row in rows for step in range(group)]
    chosen = [pool.where(index) for index in samples]
    write_selection(pools, chosen, output, group=group)
    return Selection(
        method=method,
        seed=seed,
        pools={str(path): len(part) for path, part in zip(pools, pool.parts, strict=True)},
        observed=len(seen.indices),
        outlier_channels=len(found.columns),
        coverage=coverage(found, rows),
        range_share=float(range_shares(together, rows).mean()),
        compared=compare(together, count, seed=seed),
        samples=tuple(Picked(pool=str(pools[part]), index=at) for part, at in chosen),
        written=str(output),
    )
