"""Interleaved latency: every round runs each session on the same sample, so that noise hits all alike.

Comparing two models that were timed one after the other measures the machine's mood. Here the
sessions take turns within a round, in an order drawn anew, and a speed-up is the median over
rounds of the ratio *within* a round. A turn is a short stream of runs, because that is what a device
sees: a single run between others' runs is slowed by what they left in the caches and by units that
had been powered down. Where inference runs in the calling thread alone, the ratio is of
that thread's processor time, which other programs on a busy machine do not stretch by taking the
core away; latencies are always of the wall clock.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np

from edgewise.contracts.evidence import Interval
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.units import NS_PER_MS
from edgewise.errors import DataError
from edgewise.numerics.statistics import median_ratio_interval
from edgewise.runtimes.base import Array, Session

Clock = Callable[[], int]
"""Returns nanoseconds of a monotonic clock."""

Progress = Callable[[float], None]
"""Is told the share of the work that is done, 0..1."""

_SHORTEST_SAMPLE_NS = 100_000
_TURN_NS, _MOST_IN_TURN = 5_000_000, 50
_SETTLE_NS, _MOST_SETTLING = 2_000_000, 64
_CHECK_EVERY = 5
_SAMPLES_OF_P99 = 100
_RESAMPLES, _RESAMPLES_TO_STOP = 2000, 300


class Timings(msgspec.Struct, frozen=True):
    """Times of one session, `per_round` samples a round, in milliseconds of one inference.

    A model that runs in less than 0.1 ms is repeated within a sample, `repeats` times, and the
    sample is the mean; its p99 and maximum are then those of such means.
    """

    samples_ms: tuple[float, ...]
    repeats: int = 1
    busy_ms: tuple[float, ...] = ()
    """Processor time of the calling thread, round by round; empty where that is not all of the work."""
    per_round: int = 1

    @property
    def rounds_ms(self) -> tuple[float, ...]:
        """The mean of each round's samples."""
        return tuple(np.asarray(self.samples_ms).reshape(-1, self.per_round).mean(axis=1).tolist())

    @property
    def p50_ms(self) -> float:
        """The median."""
        return self.percentile_ms(50)

    @property
    def p90_ms(self) -> float:
        """The time that nine of ten samples keep."""
        return self.percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        """The time that 99 of 100 samples keep."""
        return self.percentile_ms(99)

    @property
    def max_ms(self) -> float:
        """The longest sample."""
        return max(self.samples_ms)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile, interpolated linearly between samples."""
        return float(np.percentile(self.samples_ms, percent))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure.

    Measuring stops after `rounds`, or after `budget_s` seconds (at least `least` rounds are done),
    or from 100 samples on (which a p99 needs) as soon as the 95 % interval of every
    speed-up over the first session is narrower than `precision` of its value either way.
    """

    rounds: int = 200
    least: int = 10
    warmup: int = 3
    budget_s: float = 10.0
    precision: float = 0.01
    seed: int = 0


def interleave(
    sessions: Mapping[str, Session],
    feeds: Sequence[Mapping[str, Array]],
    *,
    plan: Plan,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter_ns,
    busy: Clock | None = None,
) -> dict[str, Timings]:
    """Time all sessions in turns; the first is the reference that the others are compared with.

    In a round every session runs the same samples of `feeds`, some 5 ms of them at the slowest session's pace and at
    least one; all of `feeds` where their shapes differ, so that a speed-up is of the sum of their times and not of the
    median sample. The order is drawn anew each round (seeded): who always came after the same large model would
    always find the caches that it left, and MiniLM in int8 seems a tenth slower behind fp32.
    Sessions faster than 2 ms run untimed for 2 ms before their turn: a neighbour's weights have just filled the caches,
    and a core needs a while to power up the units that only integers use (AMX: ResNet-8 in int8 seemed 8 % slower than
    fp32 in single runs, 10 % faster in single runs after 2 ms, and is 19 to 24 % faster in a steady loop).
    Garbage collection is off.
    `busy` (see `busy_clock`) is read beside the clock, for speed-ups.
    Raises DataError where there is nothing to run.
    """
    if not sessions or not feeds:
        raise DataError(f"{len(sessions)} sessions and {len(feeds)} samples to time", required="at least one of each")
    names = list(sessions)
    draw = np.random.default_rng(plan.seed)
    samples: dict[str, list[float]] = {name: [] for name in names}
    worked: dict[str, list[float]] = {name: [] for name in names} if busy is not None else {}
    with _garbage_collection_off():
        begin = clock()
        typical_ns = {name: _warm_up(sessions[name], feeds, plan.warmup, clock) for name in names}
        settling = {name: _settling(taken) for name, taken in typical_ns.items()}
        repeats = math.ceil(_SHORTEST_SAMPLE_NS / max(1, min(typical_ns.values())))
        per_round = _in_turn(max(typical_ns.values()) * repeats) if _alike(feeds) else len(feeds)
        for index in range(plan.rounds):
            some = [feeds[(index * per_round + at) % len(feeds)] for at in range(per_round)]
            for name in (names[at] for at in draw.permutation(len(names))):
                session = sessions[name]
                for _ in range(settling[name]):
                    session.run(some[0])
                before = busy() if busy is not None else 0
                samples[name] += [_time(session, feed, repeats, clock) / NS_PER_MS for feed in some]
                if busy is not None:
                    worked[name].append((busy() - before) / repeats / per_round / NS_PER_MS)
            done = index + 1
            spent = (clock() - begin) / 1e9 / max(plan.budget_s, 1e-9)
            if progress is not None:
                progress(min(1.0, max(done / plan.rounds, spent)))
            if done >= plan.least and spent >= 1:
                break
            due = done % _CHECK_EVERY == 0 and done >= max(plan.least, _SAMPLES_OF_P99 / per_round)
            if due and len(names) > 1 and _precise(_timings(samples, worked, repeats, per_round), names, plan):
                break
    if progress is not None:
        progress(1.0)
    return _timings(samples, worked, repeats, per_round)


def busy_clock(runtime: str, *, threads: int) -> Clock | None:
    """Return the clock of the calling thread's processor time where a runtime works in no other thread."""
    return time.thread_time_ns if runtime == RuntimeName.ONNXRUNTIME and threads == 1 else None


def speedup(reference: Timings, variant: Timings, *, seed: int = 0) -> tuple[float, Interval]:
    """Return the median over rounds of reference time / variant time, and its bootstrap interval.

    Both must come from the same call of `interleave`: sample r of one is divided by sample r of the
    other. Above 1 the variant is faster.
    """
    return _median_ratio(reference, variant, np.random.default_rng(seed), _RESAMPLES)


def _median_ratio(
    reference: Timings, variant: Timings, generator: np.random.Generator, resamples: int
) -> tuple[float, Interval]:
    both = bool(reference.busy_ms and variant.busy_ms)
    mine, theirs = (each.busy_ms if both else each.rounds_ms for each in (variant, reference))
    interval = median_ratio_interval(theirs, mine, generator=generator, resamples=resamples)
    return float(np.median(np.asarray(theirs) / np.asarray(mine))), interval


def _timings(
    samples: Mapping[str, Sequence[float]], worked: Mapping[str, Sequence[float]], repeats: int, per_round: int
) -> dict[str, Timings]:
    return {
        name: Timings(tuple(each), repeats, tuple(worked.get(name, ())), per_round) for name, each in samples.items()
    }


def _precise(timings: Mapping[str, Timings], names: Sequence[str], plan: Plan) -> bool:
    """Return whether every ratio is known well enough."""
    generator = np.random.default_rng(plan.seed)
    for name in names[1:]:
        median, interval = _median_ratio(timings[names[0]], timings[name], generator, _RESAMPLES_TO_STOP)
        if max(interval.high - median, median - interval.low) > plan.precision * median:
            return False
    return True


def _in_turn(sample_ns: int) -> int:
    """Return how many samples of one round a session takes, by the slowest session's time for one."""
    return min(math.ceil(_TURN_NS / max(1, sample_ns)), _MOST_IN_TURN)


def _alike(feeds: Sequence[Mapping[str, Array]]) -> bool:
    return len({tuple(each.shape for each in feed.values()) for feed in feeds}) == 1


def _settling(typical_ns: int) -> int:
    """Return how many untimed runs bring a core to the state that a stream of these runs has."""
    return 0 if typical_ns >= _SETTLE_NS else min(math.ceil(_SETTLE_NS / max(1, typical_ns)), _MOST_SETTLING)


def _warm_up(session: Session, feeds: Sequence[Mapping[str, Array]], warmup: int, clock: Clock) -> int:
    """Run at least once untimed and once timed; return the shortest time in nanoseconds."""
    session.run(feeds[0])
    return min(_time(session, feeds[index % len(feeds)], 1, clock) for index in range(max(1, warmup)))


def _time(session: Session, feed: Mapping[str, Array], repeats: int, clock: Clock) -> int:
    begin = clock()
    for _ in range(repeats):
        session.run(feed)
    return (clock() - begin) // repeats


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
