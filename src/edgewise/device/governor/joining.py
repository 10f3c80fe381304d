"""Which variants join: those that were measured faster, or cheaper in energy, than the wanted one on this device.

Their executions alternate, so that whatever else the device does meets all of them alike. A variant is faster where it
is so by `BY` in more rounds than chance explains (sign test: Dixon and Mood, JASA 41, 1946).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edgewise.device.governor.decide import Level
from edgewise.device.ready import Ready
from edgewise.meters.energy import EnergyMeter
from edgewise.numerics.tails import binomial_at_least

BY = 0.05
LEVEL = 0.01
ROUNDS, LEAST_ROUNDS, SECONDS = 30, 12, 6.0
_WARM_UP = 2

Nanoseconds = Callable[[], int]
Energies = Mapping[str, float | None]


class Declined(NamedTuple):
    """A variant that the governor does not use, and why."""

    variant: str
    reason: str


class Joined(NamedTuple):
    """The levels, from the wanted variant to the fastest, and what did not join."""

    levels: tuple[Level, ...]
    declined: tuple[Declined, ...]


def times_ms(members: Sequence[Ready], *, clock: Nanoseconds = time.perf_counter_ns) -> dict[str, list[float]]:
    """Return the times of every variant in alternating rounds, on the inputs that their sessions hold.

    30 rounds, or as many as fit into 6 s, but at least 12. Raises ExecutionError.
    """
    found: dict[str, list[float]] = {each.variant: [] for each in members}
    begin = clock()
    for turn in range(-_WARM_UP, ROUNDS):
        if turn >= LEAST_ROUNDS and clock() - begin > SECONDS * 1e9:
            break
        shift = turn % len(members)
        for each in (*members[shift:], *members[:shift]):
            started = clock()
            each.session.run_from({})
            if turn >= 0:
                found[each.variant].append((clock() - started) / 1e6)
    return found


def energy_mj(ready: Ready, meters: Sequence[EnergyMeter], *, seconds: float = 1.0) -> float | None:
    """Return the energy of one inference, of at least a second of them in a row; None where no meter can tell."""
    if not meters:
        return None
    for meter in meters:
        meter.start()
    begin, runs = time.monotonic(), 0
    while runs < LEAST_ROUNDS or time.monotonic() - begin < seconds:
        ready.session.run_from({})
        runs += 1
    told = [meter.stop() for meter in meters]
    return next((joules * 1000 / runs for joules in told if joules is not None and joules > 0), None)


def join(
    members: Sequence[Ready],
    times: Mapping[str, Sequence[float]],
    *,
    energies: Energies | None = None,
    memory: Mapping[str, float | None] | None = None,
    most_memory_mib: float | None = None,
) -> Joined:
    """Return who joins, by measured `times` (ms, equally many each). `members[0]` is the wanted variant.

    `energies` in millijoules of one inference, where this device has a meter; `memory` in MiB that loading took.
    """
    energies, memory = energies or {}, memory or {}
    wanted = members[0]
    levels, declined = [_level(wanted, times, energies, memory)], []
    for each in members[1:]:
        level = _level(each, times, energies, memory)
        refusal = _not_better(level, levels[0], times, has_meter=energies.get(wanted.variant) is not None)
        if refusal:
            declined.append(Declined(each.variant, refusal))
        else:
            levels.append(level)
    levels[1:] = sorted(levels[1:], key=lambda each: -each.latency_ms)
    _drop_dominated(levels, declined, {each.variant: each for each in members})
    _drop_too_large(levels, declined, most_memory_mib)
    return Joined(tuple(levels), tuple(declined))


def _level(
    ready: Ready, times: Mapping[str, Sequence[float]], energies: Energies, memory: Mapping[str, float | None]
) -> Level:
    return Level(
        variant=ready.variant,
        latency_ms=statistics.median(times[ready.variant]),
        energy_mj=energies.get(ready.variant),
        memory_mib=memory.get(ready.variant),
    )


def _not_better(level: Level, wanted: Level, times: Mapping[str, Sequence[float]], *, has_meter: bool) -> str:
    """Return why a variant is of no use, or nothing."""
    mine, its = times[level.variant], times[wanted.variant]
    faster = sum(a < (1 - BY) * b for a, b in zip(mine, its, strict=True))
    if binomial_at_least(faster, len(mine), 0.5) <= LEVEL:
        return ""
    if level.energy_mj is not None and wanted.energy_mj is not None and level.energy_mj < (1 - BY) * wanted.energy_mj:
        return ""
    energy = "nor does it take less energy" if has_meter else "whether it takes less energy is not known: no meter"
    return (
        f"not faster than {wanted.variant} here: {level.latency_ms:.3g} ms against {wanted.latency_ms:.3g} (median), "
        f"faster by {BY:.0%} in {faster} of {len(mine)} rounds; {energy}"
    )


def _drop_dominated(levels: list[Level], declined: list[Declined], members: Mapping[str, Ready]) -> None:
    """Take out, of the lower levels, those that a faster one equals in accuracy."""
    for at in range(len(levels) - 2, 0, -1):
        score, below = (_score(members[each.variant]) for each in (levels[at], levels[at + 1]))
        cheaper = _is_less(levels[at].energy_mj, levels[at + 1].energy_mj)
        if score is not None and below is not None and below >= score and not cheaper:
            name = levels[at + 1].variant
            declined.append(Declined(levels[at].variant, f"{name} is faster here and no less accurate"))
            del levels[at]


def _drop_too_large(levels: list[Level], declined: list[Declined], most_mib: float | None) -> None:
    """Take out the slowest of the lower levels until the sessions that are known to take memory fit."""
    while most_mib is not None and len(levels) > 1 and sum(each.memory_mib or 0.0 for each in levels) > most_mib:
        gone = levels.pop(1)
        declined.append(
            Declined(gone.variant, f"all sessions together would take more than {most_mib:g} MiB of memory")
        )


def _is_less(mine: float | None, its: float | None) -> bool:
    return mine is not None and its is not None and mine < its


def _score(ready: Ready) -> float | None:
    """Return how good a variant was when it was sealed, higher is better; None where nothing says."""
    for variant in () if ready.manifest is None else ready.manifest.variants:
        if variant.name == ready.variant and variant.figures.score is not None:
            return variant.figures.score if variant.figures.higher_is_better else -variant.figures.score
    return None
