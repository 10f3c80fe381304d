"""The process of a trial: `python -m edgewise.device.trial_child FOLDER MEMORY_MIB`; answers in JSON."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path

import msgspec

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
    """Return the median latency (ms) of the chosen variant. Raises GoldenError, OverBudgetError, ExecutionError."""
    from edgewise.bundle.read import decode_manifest  # noqa: PLC0415
    from edgewise.bundle.tensors import read_tensor  # noqa: PLC0415
    from edgewise.device.golden import compare  # noqa: PLC0415
    from edgewise.errors import OverBudgetError  # noqa: PLC0415
    from edgewise.runtimes import runtime  # noqa: PLC0415

    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    data = (folder / manifest.golden.path).read_bytes()
    feeds = [{each.name: read_tensor(data, each) for each in sample} for sample in manifest.golden.samples]
    variants = {each.name: each for each in manifest.variants}
    for name in dict.fromkeys((manifest.fallback, manifest.chosen)):
        variant = variants[name]
        session = runtime(variant.runtime).load(folder / variant.model, threads=variant.threads)
        expected = (folder / variant.golden.path).read_bytes()
        for index, each in enumerate(feeds):
            compare(variant, index, session.run(each), expected)
    session = runtime(variants[manifest.chosen].runtime).load(
        folder / variants[manifest.chosen].model, threads=variants[manifest.chosen].threads
    )
    times_ms = []
    for index in range(-_WARM_UP, _RUNS):
        begin = time.perf_counter_ns()
        session.run(feeds[index % len(feeds)])
        times_ms.append((time.perf_counter_ns() - begin) / 1e6)
    found = statistics.median(times_ms[_WARM_UP:])
    limit = manifest.budget.latency_p50_ms
    if limit is not None and found > limit:
        raise OverBudgetError(f"{manifest.chosen} takes {found:.3g} ms here (median), the budget is {limit:g} ms")
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(main(Path(sys.argv[1]), int(sys.argv[2])))
