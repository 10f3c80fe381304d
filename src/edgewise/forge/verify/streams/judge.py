"""What streams say about a variant: latencies, deadlines, memory and starts, each graded."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.budget import Budget
from edgewise.contracts.units import BYTES_PER_MIB, NS_PER_MS, mib
from edgewise.contracts.verification import Chart, Finding, Grade, Line
from edgewise.forge.verify.streams.pace import NS_PER_S, Stream
from edgewise.forge.verify.streams.worker import Start
from edgewise.numerics.trend import slope_interval, theil_sen

PERCENTILES = (50.0, 99.0, 99.9)
MISSED = 0.01
"""Share of frames that may be late: a p99 that holds the deadline."""
WINDOWS = 20
LEAK_MIB = 1.0
"""Growth over a soak below which nothing can be said: allocators round up."""
RATIO = 1.5
"""p99 of the variant over that of fp32 under the same condition from which it is worth a look."""
MORE = 0.05
"""And this many more of its frames late, in the median of the turns: a stutter is no property of the variant."""
BACKLOGGED = 0.5
"""Share of fp32's frames that are late from which only the time of each frame by itself can be compared."""
COLD = 1.5
"""Load and first answer over those of fp32 from which a start is worth a look."""
_FRAMES_OF = {"p50": 100, "p99": 1000}
"""Frames that a percentile takes to fail a variant: ten beyond it."""
_BLOCKS, _FEWEST_LOOKS, _WARM = 40, 40, 0.2


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stream, in milliseconds from the moment frames were due; `missed` is a share of all frames."""

    p50: float
    p99: float
    p999: float
    max: float
    service_p50: float
    """From the moment frames were begun."""
    missed: float
    worst_window: float
    """The largest share missed in one window of a twentieth of the stream."""


def times_of(streams: Sequence[Stream]) -> Times:
    """Return the figures of one or more streams of the same rate, taken together."""
    response = np.concatenate([each.response_ms for each in streams])
    service = np.concatenate([each.service_ms for each in streams])
    if not response.size:
        inf = float("inf")
        return Times(p50=inf, p99=inf, p999=inf, max=inf, service_p50=inf, missed=1.0, worst_window=1.0)
    p50, p99, p999 = np.percentile(response, PERCENTILES)
    missed = np.concatenate([each.missed for each in streams])
    return Times(
        p50=float(p50),
        p99=float(p99),
        p999=float(p999),
        max=float(response.max()),
        service_p50=float(np.median(service)),
        missed=float(missed.mean()),
        worst_window=max(float(part.mean()) for part in np.array_split(missed, min(WINDOWS, missed.size))),
    )


def is_behind(variant: Sequence[Stream], fp32: Sequence[Stream]) -> bool:
    """Say whether the variant is late more often than fp32 in the median of their turns.

    Both took turns, so what else this machine did fell on both; a burst of it falls on one turn, not on most.
    """
    pairs = zip(variant, fp32, strict=False)
    return float(np.median([mine.missed.mean() - its.missed.mean() for mine, its in pairs])) > MORE


def soak_findings(variant: Sequence[Stream], fp32: Sequence[Stream], *, budget: Budget, asked: bool) -> list[Finding]:
    """Return latency and deadlines of a soak in turns. Late frames fail it at a rate that the user asked for."""
    mine, theirs = times_of(variant), times_of(fp32)
    frames = sum(each.frames for each in variant)
    return [
        _latency("p50", mine.p50, theirs.p50, budget.latency_p50_ms, frames=frames),
        _latency("p99", mine.p99, theirs.p99, budget.latency_p99_ms, frames=frames),
        Finding(
            name="streams.latency_p999",
            grade=Grade.NOTED,
            value=mine.p999,
            reference=theirs.p999,
            unit="ms",
            detail=f"99.9 % of {frames} frames were done within {mine.p999:.2f} ms of being due, all within "
            f"{mine.max:.2f} ms" + (", which are too few to tell a p99.9" if frames < 1000 else ""),
        ),
        _deadlines(variant, fp32, asked=asked),
    ]


def memory_finding(streams: Sequence[Stream], *, generator: np.random.Generator) -> Finding:
    """Return whether resident memory grows while frames run: robust slope, with a block bootstrap's interval.

    The first fifth warms up. Only a growth that is certain, and larger than what allocators round, fails.
    """
    name, unit = "streams.memory_slope", "MiB/h"
    at, held_bytes = looks_of(streams)
    kept = slice(round(_WARM * len(at)), None)
    looked, sizes = at[kept], held_bytes[kept]
    if len(looked) < _FEWEST_LOOKS:
        return Finding(
            name=name,
            grade=Grade.UNKNOWN,
            unit=unit,
            detail=f"memory was looked at {len(looked)} times after warming up, {_FEWEST_LOOKS} are needed",
            advice="let the soak last longer (--minutes) or run faster (--fps)",
        )
    hours = _medians(looked / NS_PER_S / 3600)
    held = _medians(sizes / BYTES_PER_MIB)
    slope = theil_sen(hours, held)
    interval = slope_interval(hours, held, generator=generator)
    span = float((looked[-1] - looked[0]) / NS_PER_S / 3600)
    growth = slope * span
    per_frame = slope * BYTES_PER_MIB * streams[0].period_ns / NS_PER_S / 3600
    certain = interval.low > 0
    grade = Grade.FAIL if certain and growth >= LEAK_MIB else Grade.FLAG if growth >= LEAK_MIB else Grade.PASS
    return Finding(
        name=name,
        grade=grade,
        value=slope,
        interval=interval,
        limit=LEAK_MIB / span,
        unit=unit,
        detail=f"memory changed by {growth:+.2f} MiB in {60 * span:.2g} minutes, {per_frame:.0f} bytes a frame",
        advice="a leak: run a longer soak, then look at what each inference keeps" if grade is not Grade.PASS else "",
    )


def start_finding(variant: Sequence[Start], fp32: Sequence[Start]) -> Finding:
    """Return what a cold start takes, the median of fresh processes: load and first inference beside fp32's."""
    mine, theirs = (float(np.median([each.load_ms + each.first_ms for each in some])) for some in (variant, fp32))
    whole = float(np.median([each.total_ms for each in variant]))
    slow = mine > COLD * theirs
    return Finding(
        name="streams.cold_start",
        grade=Grade.FLAG if slow else Grade.PASS,
        value=mine,
        reference=theirs,
        limit=COLD * theirs,
        unit="ms",
        detail=f"{mine:.0f} ms to load and answer once, {whole:.0f} ms from an empty process "
        f"({len(variant)} fresh {'process' if len(variant) == 1 else 'processes'})",
        advice="look for constants that are folded or packed while loading" if slow else "",
    )


def condition_finding(
    name: str, words: str, streams: Sequence[Stream], references: Sequence[Stream], *, budget: Budget
) -> Finding:
    """Return how the variant stands beside fp32 under the same condition, in turns."""
    variant, fp32 = times_of(streams), times_of(references)
    ratio = variant.p99 / fp32.p99 if np.isfinite(variant.p99) and fp32.p99 > 0 else float("inf")
    limit = budget.latency_p99_ms
    over = limit is not None and variant.p99 > limit
    if fp32.missed > BACKLOGGED:  # frames wait for frames: a little more work is a much longer queue
        worse = variant.service_p50 > RATIO * fp32.service_p50
    else:
        worse = ratio > RATIO and is_behind(streams, references)
    return Finding(
        name=f"streams.{name}",
        grade=Grade.FLAG if over or worse else Grade.PASS,
        value=finite(variant.p99),
        reference=finite(fp32.p99),
        limit=limit,
        unit="ms",
        detail=f"{words}: p99 {variant.p99:.2f} ms, fp32 {fp32.p99:.2f} ms; late frames {variant.missed:.1%}, "
        f"fp32 {fp32.missed:.1%}",
        advice="leave more room in the budget, or a lower frame rate for such times" if over or worse else "",
    )


def pressure_finding(taken_mib: float, fp32_mib: float, *, slack: float, refused: str) -> Finding:
    """Return whether the variant starts and runs with `slack` times the private memory that lets fp32 do so."""
    limit_mib = slack * fp32_mib
    words = f"does not run: {refused}" if refused else f"runs, and takes {taken_mib:.1f} MiB"
    return Finding(
        name="streams.memory_pressure",
        grade=Grade.FLAG if refused else Grade.PASS,
        value=None if refused else taken_mib,
        reference=fp32_mib,
        limit=limit_mib,
        unit="MiB",
        detail=f"with {limit_mib:.1f} MiB of private memory (RLIMIT_DATA), {slack:g} times fp32's least, "
        f"the variant {words}",
        advice="it takes more than fp32 while loading: look at what is unpacked there" if refused else "",
    )


def unavailable(name: str, reason: str, *, advice: str = "") -> Finding:
    """Return a finding about what this machine does not let be done."""
    return Finding(name=f"streams.{name}", grade=Grade.UNAVAILABLE, detail=reason, advice=advice)


def charts(variant: Sequence[Stream], fp32: Sequence[Stream]) -> tuple[Chart, ...]:
    """Return latency over the soak, window by window, and memory over the soak; of each model its own turns."""
    seconds = sum(each.frames * each.period_ns for each in variant) / NS_PER_S
    lines = [_over_windows(f"{name} p99", each) for name, each in (("variant", variant), ("fp32", fp32))]
    looked, sizes = looks_of(variant)
    held = Line(
        name="variant",
        x=tuple((looked / NS_PER_S).round(3).tolist()),
        y=tuple(mib(size) for size in sizes.tolist()),
    )
    return (
        Chart(title=f"Latency over {seconds:.0f} s", x_label="time, s", y_label="due to done, ms", lines=tuple(lines)),
        Chart(title="Resident memory", x_label="time, s", y_label="MiB", lines=(held,)),
    )


def looks_of(streams: Sequence[Stream]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when memory was looked at, in nanoseconds of all turns put one behind the other, and what was held."""
    begun = np.cumsum([0, *(each.frames * each.period_ns for each in streams)])
    looked = [each.looked_ns + start for each, start in zip(streams, begun[:-1], strict=True)]
    return np.concatenate(looked), np.concatenate([each.resident_bytes for each in streams])


def _over_windows(name: str, streams: Sequence[Stream]) -> Line:
    whole = sum(each.frames * each.period_ns for each in streams) / NS_PER_S
    parts, start = [], 0.0
    for stream in streams:
        for part in stream.windows(whole / WINDOWS):
            values = stream.response_ms[part]
            if values.size:
                parts.append((start + part.start * stream.period_ns / NS_PER_S, float(np.percentile(values, 99))))
        start += stream.frames * stream.period_ns / NS_PER_S
    return Line(name=name, x=tuple(round(at, 3) for at, _ in parts), y=tuple(value for _, value in parts))


def _latency(percentile: str, value: float, reference: float, limit: float | None, *, frames: int) -> Finding:
    """Return a latency against its limit; one that is broken fails the variant where there are frames enough."""
    over = limit is not None and value > limit
    few = frames < _FRAMES_OF[percentile]
    grade = Grade.NOTED if limit is None else Grade.PASS
    if over:
        grade = Grade.FLAG if few else Grade.FAIL
    return Finding(
        name=f"streams.latency_{percentile}",
        grade=grade,
        value=finite(value),
        reference=finite(reference),
        limit=limit,
        unit="ms",
        detail=f"{percentile[1:]} % of {frames} frames were done within {value:.2f} ms of being due, fp32 "
        f"{reference:.2f} ms" + (f" ({frames} frames are few for a {percentile})" if few else ""),
        advice="an idle machine, fewer frames a second, or a faster variant" if over else "",
    )


def _deadlines(variant: Sequence[Stream], fp32: Sequence[Stream], *, asked: bool) -> Finding:
    mine, theirs = times_of(variant), times_of(fp32)
    period_ns, frames = variant[0].period_ns, sum(each.frames for each in variant)
    late, behind = mine.missed > MISSED, is_behind(variant, fp32)
    grade, why = Grade.PASS, ""
    if late and asked:
        # With half of its time to spare, and fp32 as late in turns with it, the variant is not what makes it late.
        busy = not behind and mine.service_p50 * NS_PER_MS < period_ns / 2 and theirs.missed > MISSED
        grade, why = (Grade.UNKNOWN, "; this machine was too busy to tell") if busy else (Grade.FAIL, "")
    elif late:  # at a rate that nobody asked for fp32 is the measure, and the machine may be busy
        grade = Grade.FLAG if behind else Grade.NOTED
    dropped = sum(each.dropped for each in variant)
    return Finding(
        name="streams.deadline_misses",
        grade=grade,
        value=mine.missed,
        reference=theirs.missed,
        limit=MISSED,
        detail=f"{mine.missed:.2%} of {frames} frames at {NS_PER_S / period_ns:.4g} a second were late"
        + (f", {dropped} never ran" if dropped else "")
        + f"; {mine.worst_window:.1%} in the worst window; fp32 in turns with it {theirs.missed:.2%}{why}",
        advice="lower --fps, use more threads, or look for a faster variant" if late else "",
    )


def _medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the medians of consecutive blocks: a few points that single looks do not move."""
    return np.array([np.median(block) for block in np.array_split(values, min(_BLOCKS, len(values)))])


def finite(value: float) -> float | None:
    """Return a number, or None for one that no document holds: a stream that never ran has no latency."""
    return value if np.isfinite(value) else None
