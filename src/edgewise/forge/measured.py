"""Measure a shortlist end to end: latency interleaved with fp32, memory in a fresh process, size, energy."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.evidence import Candidate, EnergyProvenance, Interval, Status
from edgewise.contracts.target import RuntimeName
from edgewise.errors import EdgewiseError
from edgewise.forge.cache import Cache, digest
from edgewise.forge.measure.environment import cores
from edgewise.forge.measure.lab import Lab, Model
from edgewise.forge.measure.size import size_mib
from edgewise.forge.prepare import Prepared
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Feeds
from edgewise.runtimes.base import Session
from edgewise.runtimes.timing import Plan, speedup

_MEMORY_RUNS = 4


class Latency(Value, kw_only=True):
    """Times of one variant, milliseconds, and its speed against fp32 of the same rounds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    speedup: float
    interval: Interval


class Shortlisted(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with the file that holds it."""

    candidate: Candidate
    file: Path
    digest: str


def measure_latency(
    prepared: Prepared,
    shortlist: Sequence[Shortlisted],
    feeds: Sequence[Feeds],
    *,
    plan: Plan,
    costs: Cache,
    context: str,
    progress: Progress,
) -> tuple[Latency, list[Shortlisted]]:
    """Time fp32 and the shortlist in turns; return fp32's times and the shortlist with theirs.

    What was measured together before on this machine is not measured again, so that the same run
    twice chooses the same variant. A candidate that its runtime refuses becomes a failure; one that is a
    failure already is left as it is.
    """
    timed = [each for each in shortlist if each.candidate.status is not Status.FAILED]
    models: dict[str, Model] = {_REFERENCE: (RuntimeName(prepared.runtime.name), prepared.imported.original)}
    models |= {each.candidate.name: (RuntimeName(each.candidate.runtime), each.file) for each in timed}
    names = ",".join(f"{each.candidate.runtime}:{each.digest}" for each in timed)
    key = digest("latency", names, context, str(prepared.threads), str(len(feeds)), str(plan))
    found = costs.get(key, dict[str, Latency])
    failed: dict[str, str] = {}
    if found is None:
        progress.start("measure latency, interleaved with fp32", 100)
        timings, failed = prepared.lab.time(
            models,
            feeds,
            threads=prepared.threads,
            plan=plan,
            progress=lambda share: progress.advance(int(100 * share)),
        )
        found = {}
        for name, times in timings.items():
            ratio, interval = speedup(timings[_REFERENCE], times, seed=plan.seed)
            found[name] = Latency(
                p50_ms=times.p50_ms,
                p90_ms=times.p90_ms,
                p99_ms=times.p99_ms,
                max_ms=times.max_ms,
                speedup=ratio,
                interval=interval,
            )
        costs.put(key, found)
    measured = [_with_times(each, found, failed) for each in shortlist]
    return found[_REFERENCE], measured


def with_latency(candidate: Candidate, latency: Latency) -> Candidate:
    """Return a candidate with its measured times."""
    return msgspec.structs.replace(
        candidate,
        status=Status.MEASURED,
        speedup=latency.speedup,
        speedup_interval=latency.interval,
        latency_p50_ms=latency.p50_ms,
        latency_p90_ms=latency.p90_ms,
        latency_p99_ms=latency.p99_ms,
        latency_max_ms=latency.max_ms,
    )


class Peaks:
    """Peak memory of several files, each in a fresh process, at most one process a core.

    What else runs meanwhile does not change a process's own memory: use it beside work that takes no times.
    """

    def __init__(self, prepared: Prepared, each: Sequence[tuple[Path, str]], feeds: Sequence[Feeds]) -> None:
        """Start measuring `each` file on its runtime."""
        few = [feeds[at] for at in range(min(_MEMORY_RUNS, len(feeds)))]
        self._pool = ThreadPoolExecutor(max_workers=cores())
        self._found = {
            (file, name): self._pool.submit(_peak_mib, prepared.lab, file, few, name=name, threads=prepared.threads)
            for file, name in each
        }

    def mib(self, file: Path, runtime: str) -> float | None:
        """Wait for the peak of a file on a runtime; None where it could not be measured."""
        return self._found[file, runtime].result()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """See close."""
        self.close()

    def close(self) -> None:
        """Wait for what has begun."""
        self._pool.shutdown(cancel_futures=True)


def _peak_mib(lab: Lab, file: Path, feeds: Sequence[Feeds], *, name: str, threads: int) -> float | None:
    try:
        return lab.peak_mib((RuntimeName(name), file), feeds, threads=threads)
    except EdgewiseError:
        return None


def with_footprint(
    prepared: Prepared, each: Shortlisted, feeds: Sequence[Feeds], *, peak: float | None, session: Session | None = None
) -> Candidate:
    """Return a candidate with size, peak memory (MiB, measured before) and, given a session, energy per inference."""
    candidate = each.candidate
    energy, provenance = None, EnergyProvenance.UNAVAILABLE
    if session is not None:
        found = prepared.lab.energy(session, feeds, power=prepared.target.power)
        energy, provenance = found.energy_mj, found.provenance
    return msgspec.structs.replace(
        candidate,
        peak_memory_mib=peak,
        size_mib=size_mib(each.file),
        energy_mj=energy,
        energy_provenance=provenance,
    )


_REFERENCE = "fp32"


def _with_times(each: Shortlisted, found: dict[str, Latency], failed: dict[str, str]) -> Shortlisted:
    name = each.candidate.name
    if name in found:
        return msgspec.structs.replace(each, candidate=with_latency(each.candidate, found[name]))
    if each.candidate.status is Status.FAILED:
        return each
    reason = failed.get(name, "not measured")
    return msgspec.structs.replace(
        each, candidate=msgspec.structs.replace(each.candidate, status=Status.FAILED, reason=reason)
    )
