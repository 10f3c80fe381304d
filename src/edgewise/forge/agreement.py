"""Run the chosen variant on the other installed runtimes: how much they disagree is evidence."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.run import RuntimeAgreement
from edgewise.contracts.target import RuntimeName
from edgewise.errors import EdgewiseError
from edgewise.forge.data.split import Subset
from edgewise.forge.judge import compare
from edgewise.forge.measure.samples import timed_from
from edgewise.forge.prepare import Prepared
from edgewise.forge.progress import Progress
from edgewise.runtimes import available, runtime
from edgewise.runtimes.base import Runtime
from edgewise.runtimes.timing import Plan, busy_clock, interleave, speedup

_SAMPLES, _TIMED = 256, 8
_SECONDS = 1.5


def agreements(prepared: Prepared, file: Path, chosen_on: Runtime, progress: Progress) -> tuple[RuntimeAgreement, ...]:
    """Return one entry per other runtime that is installed, with its disagreement or the reason for none.

    Outputs are compared with those of the runtime that the variant was chosen on, times with fp32's on the first.
    """
    others = [name for name in available() if name != chosen_on.name]
    found = []
    for name in others:
        progress.start(f"the same variant on {name}", None)
        found.append(_agreement(prepared, file, chosen_on, name))
    return tuple(found)


def _agreement(prepared: Prepared, file: Path, chosen_on: Runtime, name: RuntimeName) -> RuntimeAgreement:
    other = runtime(name)
    split = prepared.test if prepared.test is not None else prepared.select
    some = Subset(split, range(min(_SAMPLES, len(split))))
    try:
        first = chosen_on.load(file, threads=prepared.threads)
        second = other.load(file, threads=prepared.threads)
        compared = compare(prepared.task, first, second, some).variant
        feeds = timed_from(some, among=_SAMPLES, count=_TIMED)
        # Processor time compares only where both work in this thread: most others keep threads of their own.
        clocks = [busy_clock(each, threads=prepared.threads) for each in (prepared.runtime.name, name)]
        timings = interleave(
            {"fp32": prepared.fp32, "other": second},
            feeds,
            plan=Plan(budget_s=_SECONDS),
            busy=clocks[0] if all(clocks) else None,
        )
        ratio, _ = speedup(timings["fp32"], timings["other"])
    except EdgewiseError as error:
        reason = str(error).splitlines()[0]
        return RuntimeAgreement(
            runtime=name, version=other.version(), sqnr_db=None, flip_rate=None, speedup=None, reason=reason
        )
    return RuntimeAgreement(
        runtime=name,
        version=other.version(),
        sqnr_db=compared.sqnr_db,
        flip_rate=compared.flip_rate,
        speedup=ratio,
    )
