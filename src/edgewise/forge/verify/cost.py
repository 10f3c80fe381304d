"""What both models cost on this machine: size, speed, and what else the budget asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.contracts.evidence import Figures
from edgewise.contracts.target import PowerModel, RuntimeName
from edgewise.contracts.verification import Depth, Finding, Grade, Section
from edgewise.errors import EdgewiseError
from edgewise.forge.measure.energy import measure_energy
from edgewise.forge.measure.memory import measure_memory
from edgewise.forge.measure.samples import timed_from
from edgewise.forge.measure.size import size_mib
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Feeds
from edgewise.forge.verify.subject import Subject
from edgewise.meters.energy import find_meters
from edgewise.runtimes.base import Session
from edgewise.runtimes.timing import Plan, Timings, busy_clock, interleave, speedup

NAME = "cost"
_SECONDS = {Depth.QUICK: 3.0, Depth.FULL: 12.0}
SLOWER = 0.95
"""Of fp32's speed: clocks differ by a few percent between two sessions of one and the same file."""
_LOOKED_AT, _TIMED, _MOST_ROUNDS = 128, 16, 4000
_ENERGY_SECONDS = 0.5


def measure_cost(
    subject: Subject, *, power: PowerModel | None, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fp32's and the variant's cost under the names that Figures gives them; what cannot be measured is None."""
    feeds = timed_from(subject.test, among=_LOOKED_AT, count=_TIMED)
    progress.start("latency, interleaved with fp32", 100)
    plan = Plan(rounds=_MOST_ROUNDS, budget_s=_SECONDS[subject.depth], seed=subject.seed)
    sessions = {"fp32": subject.reference, "variant": subject.variant}
    timings = interleave(
        sessions,
        feeds,
        plan=plan,
        progress=lambda share: progress.advance(int(100 * share)),
        busy=busy_clock(subject.runtime.name, threads=subject.threads),
    )
    ratio, interval = speedup(timings["fp32"], timings["variant"], seed=subject.seed)
    progress.start("memory and size", None)
    reference = {
        **_times(timings["fp32"]),
        **_footprint(subject, subject.reference_path, feeds),
        **_energy(subject.reference, feeds, power),
        "speedup": 1.0,
    }
    variant = {
        **_times(timings["variant"]),
        **_footprint(subject, subject.variant_path, feeds),
        **_energy(subject.variant, feeds, power),
        "speedup": ratio,
        "speedup_interval": interval,
    }
    return reference, variant


def cost_section(reference: Figures, variant: Figures) -> Section:
    """Return what the figures say without a budget: an int8 variant that is slower than fp32 is worth a look."""
    findings = []
    if variant.speedup is not None and variant.speedup_interval is not None:
        slower = variant.speedup_interval.high < SLOWER
        findings.append(
            Finding(
                name="cost.speed",
                grade=Grade.FLAG if slower else Grade.PASS,
                detail=f"{variant.speedup:.2f} times as fast as fp32, in rounds that took turns",
                value=variant.speedup,
                reference=1.0,
                interval=variant.speedup_interval,
                advice="let `edgewise optimize` place formats by measured cost" if slower else "",
            )
        )
    rows = (
        ("latency_p50", variant.latency_p50_ms, reference.latency_p50_ms, "ms"),
        ("latency_p99", variant.latency_p99_ms, reference.latency_p99_ms, "ms"),
        ("peak_memory", variant.peak_memory_mib, reference.peak_memory_mib, "MiB"),
        ("size", variant.size_mib, reference.size_mib, "MiB"),
        ("energy", variant.energy_mj, reference.energy_mj, "mJ"),
    )
    for name, value, before, unit in rows:
        findings.append(
            Finding(
                name=f"cost.{name}",
                grade=Grade.NOTED if value is not None else Grade.UNAVAILABLE,
                detail="measured on this machine" if value is not None else "this machine has no means to measure it",
                value=value,
                reference=before,
                unit=unit,
            )
        )
    return Section(suite=NAME, title="Cost", findings=tuple(findings))


def _times(timings: Timings) -> dict[str, Any]:
    return {
        "latency_p50_ms": timings.p50_ms,
        "latency_p90_ms": timings.p90_ms,
        "latency_p99_ms": timings.p99_ms,
        "latency_max_ms": timings.max_ms,
    }


def _footprint(subject: Subject, file: Path, feeds: Sequence[Feeds]) -> dict[str, Any]:
    try:
        name = RuntimeName(subject.runtime.name)
        peak = measure_memory(file, feeds[:4], runtime=name, threads=subject.threads).peak_mib
    except EdgewiseError:
        peak = None
    return {"peak_memory_mib": peak, "size_mib": size_mib(file)}


def _energy(session: Session, feeds: Sequence[Feeds], power: PowerModel | None) -> dict[str, Any]:
    found = measure_energy(session, feeds, available=find_meters(power=power), seconds=_ENERGY_SECONDS)
    return {"energy_mj": found.energy_mj, "energy_provenance": found.provenance}
