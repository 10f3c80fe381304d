"""The process of a trial: `python -m edgewise.device.trial_child FOLDER MEMORY_MIB`; answers in JSON."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgewise.errors import GoldenError, OverBudgetError

if TYPE_CHECKING:
    from edgewise.bundle.stages import Values
    from edgewise.contracts.manifest import Manifest
    from edgewise.contracts.pipeline import ModelStage, PipelineManifest
    from edgewise.runtimes.base import Array

_WARM_UP, _RUNS = 3, 31


def main(folder: Path, memory_mib: int) -> bytes:
    """Limit this process, try the bundle, return a `Tried` as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The libraries are loaded under the limit too.
    from edgewise.device.trial import Tried  # noqa: PLC0415
    from edgewise.errors import EdgewiseError  # noqa: PLC0415

    try:
        return msgspec.json.encode(Tried(latency_p50_ms=_tried(folder)))
    except EdgewiseError as error:
        return msgspec.json.encode(Tried(kind=type(error).__name__, problem=error.found))


def _tried(folder: Path) -> float:
    """Return the median latency (ms) of the bundle. Raises GoldenError, OverBudgetError, ExecutionError."""
    from edgewise.bundle.read import decode_sealed  # noqa: PLC0415
    from edgewise.contracts.pipeline import PipelineManifest  # noqa: PLC0415

    sealed = decode_sealed((folder / "manifest.json").read_bytes())
    if not isinstance(sealed, PipelineManifest):
        return _tried_model(folder, sealed)
    return _tried_pipeline(folder, sealed)


def _tried_model(folder: Path, manifest: Manifest, *, more: tuple[str, ...] = ()) -> float:
    """Return the median latency (ms) of the chosen variant; `more` names variants that must be right too."""
    from edgewise.bundle.tensors import read_tensor  # noqa: PLC0415
    from edgewise.device.golden import compare  # noqa: PLC0415
    from edgewise.runtimes import runtime  # noqa: PLC0415

    data = (folder / manifest.golden.path).read_bytes()
    feeds = [{each.name: read_tensor(data, each) for each in sample} for sample in manifest.golden.samples]
    variants = {each.name: each for each in manifest.variants}
    for name in dict.fromkeys((*more, manifest.fallback, manifest.chosen)):
        variant = variants[name]
        session = runtime(variant.runtime).load(folder / variant.model, threads=variant.threads)
        expected = (folder / variant.golden.path).read_bytes()
        for index, each in enumerate(feeds):
            compare(variant.golden, index, session.run(each), expected, name=variant.name)
    session = runtime(variants[manifest.chosen].runtime).load(
        folder / variants[manifest.chosen].model, threads=variants[manifest.chosen].threads
    )
    found = _median_ms([partial(session.run, each) for each in feeds])
    _within(found, manifest.budget.latency_p50_ms, manifest.chosen)
    return found


def _tried_pipeline(folder: Path, manifest: PipelineManifest) -> float:
    """Return the median time (ms) through all stages, each of which is tried by itself before."""
    from edgewise.bundle.stages import walked  # noqa: PLC0415
    from edgewise.bundle.tensors import read_tensor  # noqa: PLC0415
    from edgewise.device.golden import compare  # noqa: PLC0415

    runs = {}
    for stage in manifest.pipeline.stages:
        runs[stage.name] = _opened_stage(folder / stage.name, stage)
    data = (folder / manifest.golden.path).read_bytes()
    items = [{each.name: read_tensor(data, each) for each in sample} for sample in manifest.golden.samples]

    def through(item: dict[str, Array]) -> dict[str, Array]:
        return walked(manifest.pipeline, item, lambda stage, feeds: runs[stage.name](feeds))

    expected = (folder / manifest.golden_outputs.path).read_bytes()
    for index, item in enumerate(items):
        found = through(item)
        due = [each.tensor.name for each in manifest.golden_outputs.samples[index]]
        if list(found) != due:
            raise GoldenError(f"golden input {index} gives {', '.join(found)}", required=", ".join(due))
        compare(manifest.golden_outputs, index, list(found.values()), expected, name="the pipeline")
    taken = _median_ms([partial(through, each) for each in items])
    _within(taken, manifest.budget.latency_p50_ms, "the pipeline")
    _within(taken, manifest.pipeline.deadline_ms, "the pipeline, whose items are due by then,")
    return taken


def _opened_stage(folder: Path, stage: ModelStage) -> Callable[[Values], Values]:
    """Try one stage's bundle; return what executes it, with states of zeros every time."""
    from edgewise.bundle.read import decode_manifest  # noqa: PLC0415
    from edgewise.bundle.stages import begun, variant_of  # noqa: PLC0415
    from edgewise.device.pipeline.opened import check_stage  # noqa: PLC0415
    from edgewise.runtimes import runtime  # noqa: PLC0415

    check_stage(stage, folder)
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    variant = variant_of(stage, manifest)
    _tried_model(folder, manifest, more=(variant.name,))
    session = runtime(variant.runtime).load(folder / variant.model, threads=variant.threads)
    states = begun(manifest, variant, stage.state)

    def run(feeds: Values) -> Values:
        outputs = session.run({**feeds, **states})
        return {each.name: array for each, array in zip(session.outputs, outputs, strict=True)}

    return run


def _median_ms(calls: Sequence[Callable[[], object]]) -> float:
    times_ms = []
    for index in range(-_WARM_UP, _RUNS):
        begin = time.perf_counter_ns()
        calls[index % len(calls)]()
        times_ms.append((time.perf_counter_ns() - begin) / 1e6)
    return statistics.median(times_ms[_WARM_UP:])


def _within(found_ms: float, limit_ms: float | None, what: str) -> None:
    if limit_ms is not None and found_ms > limit_ms:
        raise OverBudgetError(f"{what} takes {found_ms:.3g} ms here (median), the budget is {limit_ms:g} ms")


if __name__ == "__main__":
    sys.stdout.buffer.write(main(Path(sys.argv[1]), int(sys.argv[2])))
