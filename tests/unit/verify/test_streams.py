"""The pure part of streams: schedule, deadlines, memory and grades, on a machine whose time only passes as told."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.verify.streams.child import resident_bytes
from edgewise.forge.verify.streams.judge import (
    charts,
    condition_finding,
    looks_of,
    memory_finding,
    pressure_finding,
    soak_findings,
    start_finding,
    times_of,
)
from edgewise.forge.verify.streams.pace import NS_PER_S, Stream, pace
from edgewise.forge.verify.streams.suite import rate
from edgewise.forge.verify.streams.worker import Start

PERIOD_MS = 10
MIB = 1 << 20


class Machine:
    """Time that passes while a frame runs and while nobody does."""

    def __init__(self, cost_ms: Callable[[int], float], resident: Callable[[int], int] = lambda _: 0) -> None:
        self._cost_ms = cost_ms
        self._resident = resident
        self.now_ns = 5_000
        self.ran = 0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ns += round(seconds * NS_PER_S)

    def run(self, frame: int) -> None:
        assert frame == self.ran
        self.now_ns += round(self._cost_ms(frame) * 1e6)
        self.ran += 1

    def stream(self, frames: int, *, period_ms: float = PERIOD_MS) -> Stream:
        return pace(
            self.run,
            period_ns=round(period_ms * 1e6),
            frames=frames,
            clock=lambda: self.now_ns,
            sleep=self.sleep,
            resident=lambda: self._resident(self.ran),
        )


def graded(found: list[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in found}


STEADY = Machine(lambda _: 2.0).stream(2000)


def test_a_fast_model_waits_for_each_frame() -> None:
    stream = Machine(lambda _: 2.0).stream(100)
    assert np.allclose(stream.response_ms, 2.0)
    assert np.array_equal(stream.begun_ns, np.arange(100) * PERIOD_MS * 1_000_000)
    assert stream.dropped == 0
    assert not stream.missed.any()


def test_one_hiccup_delays_the_frames_behind_it_and_service_time_alone_hides_that() -> None:
    stream = Machine(lambda frame: 50.0 if frame == 10 else 4.0).stream(100)
    assert stream.response_ms[10:20].round(6).tolist() == [50, 44, 38, 32, 26, 20, 14, 8, 4, 4]
    assert stream.service_ms[11:].max() == pytest.approx(4.0)
    assert np.flatnonzero(stream.missed).tolist() == [10, 11, 12, 13, 14, 15, 16]


def test_a_slow_model_misses_its_deadlines_by_schedule_and_ends() -> None:
    stream = Machine(lambda _: 50.0).stream(100)
    assert stream.frames == 100
    assert stream.dropped > 50
    assert stream.missed.all()
    found = graded(soak_findings([stream], [STEADY], budget=Budget(), asked=True))
    assert found["streams.deadline_misses"].grade is Grade.FAIL
    assert found["streams.deadline_misses"].value == 1.0
    assert "never ran" in found["streams.deadline_misses"].detail
    found = graded(soak_findings([stream], [STEADY], budget=Budget(), asked=False))
    assert found["streams.deadline_misses"].grade is Grade.FLAG


def test_late_frames_are_counted_by_window() -> None:
    stream = Machine(lambda frame: 12.0 if 1000 <= frame < 1010 else 2.0).stream(2000)
    times = times_of([stream])
    assert times.missed == pytest.approx(12 / 2000)
    assert times.worst_window == pytest.approx(12 / 100)
    windows = stream.windows(1.0)
    assert [part.start for part in windows[:3]] == [0, 100, 200]
    assert sum(part.stop - part.start for part in windows) == 2000
    assert (
        graded(soak_findings([stream], [STEADY], budget=Budget(), asked=True))["streams.deadline_misses"].grade
        is Grade.PASS
    )


def test_the_budgets_limits_judge_from_the_moment_a_frame_was_due() -> None:
    stream = Machine(lambda frame: 30.0 if frame % 50 == 0 else 2.0).stream(2000)
    budget = Budget(latency_p50_ms=2.5, latency_p99_ms=9.0)
    found = graded(soak_findings([stream], [STEADY], budget=budget, asked=False))
    assert found["streams.latency_p50"].grade is Grade.PASS
    assert found["streams.latency_p99"].grade is Grade.FAIL
    assert found["streams.latency_p99"].reference == pytest.approx(2.0)
    few = graded(soak_findings([Machine(lambda _: 9.5).stream(100)], [STEADY], budget=budget, asked=False))
    assert few["streams.latency_p99"].grade is Grade.FLAG
    assert few["streams.latency_p50"].grade is Grade.FAIL
    assert (
        graded(soak_findings([stream], [STEADY], budget=Budget(), asked=False))["streams.latency_p99"].grade
        is Grade.NOTED
    )


def test_a_leaking_session_is_found_by_its_slope() -> None:
    kept: list[mmap.mmap] = []

    def leak(_: int) -> float:
        # Pages of its own: an allocator might hand out what earlier tests freed, which is resident already.
        kept.append(mmap.mmap(-1, 64 * 1024))
        kept[-1].write(b"x" * len(kept[-1]))
        return 2.0

    stream = Machine(leak, lambda _: resident_bytes()).stream(800)
    found = memory_finding([stream], generator=np.random.default_rng(0))
    assert found.grade is Grade.FAIL
    assert found.interval is not None
    assert found.interval.low > 0
    assert found.value == pytest.approx(64 / 1024 * 100 * 3600, rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_memory_that_jitters_or_only_grows_at_first_is_no_leak(seed: int) -> None:
    random = np.random.default_rng(seed)
    jitter = Machine(lambda _: 2.0, lambda _: 100 * MIB + int(random.integers(0, MIB)))
    assert memory_finding([jitter.stream(800)], generator=random).grade is Grade.PASS
    warming = Machine(lambda _: 2.0, lambda ran: 100 * MIB + min(ran, 150) * MIB // 8)
    assert memory_finding([warming.stream(1000)], generator=random).grade is Grade.PASS


def test_a_soak_that_is_too_short_says_so() -> None:
    found = memory_finding([Machine(lambda _: 2.0).stream(20)], generator=np.random.default_rng(0))
    assert found.grade is Grade.UNKNOWN


def test_conditions_are_judged_beside_fp32() -> None:
    fast, slow = [STEADY], [Machine(lambda _: 14.0).stream(500)]
    assert condition_finding("heat", "hot", fast, slow, budget=Budget()).grade is Grade.PASS
    assert condition_finding("heat", "hot", slow, fast, budget=Budget()).grade is Grade.FLAG
    assert condition_finding("heat", "hot", slow, slow, budget=Budget()).grade is Grade.PASS
    assert condition_finding("heat", "hot", fast, slow, budget=Budget(latency_p99_ms=1.0)).grade is Grade.FLAG


def test_a_stream_that_never_ran_has_no_latency() -> None:
    empty = Stream(
        period_ns=10,
        dropped=3,
        **{name: np.empty(0, np.int64) for name in ("begun_ns", "done_ns", "looked_ns", "resident_bytes")},
    )
    found = condition_finding("heat", "hot", [empty], [STEADY], budget=Budget())
    assert found.value is None
    assert found.grade is Grade.FLAG


def test_cold_starts_are_compared_by_load_and_first_answer() -> None:
    def start(load: float) -> Start:
        return Start(process_ms=50, import_ms=300, load_ms=load, first_ms=5, data_bytes=1)

    assert start_finding([start(90)] * 3, [start(100)] * 3).grade is Grade.PASS
    found = start_finding([start(400), start(90), start(400)], [start(100)] * 3)
    assert found.grade is Grade.FLAG
    assert found.value == 405


def test_memory_pressure_that_the_variant_does_not_bear_is_flagged() -> None:
    assert pressure_finding(3.0, 4.0, slack=1.25, refused="").grade is Grade.PASS
    found = pressure_finding(0.0, 4.0, slack=1.25, refused="bad allocation")
    assert found.grade is Grade.FLAG
    assert found.value is None
    assert "bad allocation" in found.detail
    assert (found.reference, found.limit) == (4.0, 5.0)


def test_the_charts_show_every_window() -> None:
    latency, memory = charts([STEADY], [STEADY])
    assert len(latency.lines[0].x) == 20
    assert max(latency.lines[0].y) == pytest.approx(2.0)
    assert len(memory.lines[0].x) == len(STEADY.looked_ns) <= 400


def test_the_rate_is_what_was_asked_for_or_half_of_what_fp32_can() -> None:
    assert rate(3.0, asked=12.5) == 12.5
    assert rate(3.0, asked=None) == 30.0
    assert rate(100.0, asked=None) == pytest.approx(5.0)


def test_what_the_machine_does_in_one_turn_is_not_blamed_on_the_variant() -> None:
    calm = [Machine(lambda _: 2.0).stream(100) for _ in range(5)]
    hit = [*calm[:4], Machine(lambda _: 30.0).stream(100)]
    assert condition_finding("heat", "hot", hit, calm, budget=Budget()).grade is Grade.PASS
    found = graded(soak_findings(hit, calm, budget=Budget(), asked=False))["streams.deadline_misses"]
    assert found.grade is Grade.NOTED
    most = [*calm[:2], *[Machine(lambda _: 30.0).stream(100)] * 3]
    assert condition_finding("heat", "hot", most, calm, budget=Budget()).grade is Grade.FLAG
    found = graded(soak_findings(most, calm, budget=Budget(), asked=False))["streams.deadline_misses"]
    assert found.grade is Grade.FLAG


def test_frames_late_at_the_asked_rate_are_unknown_only_where_fp32_is_as_late_and_time_was_left() -> None:
    def stuttering() -> Stream:
        return Machine(lambda frame: 60.0 if frame % 50 == 0 else 3.0).stream(500)

    def grade(mine: Stream, theirs: Stream) -> Grade:
        found = graded(soak_findings([mine], [theirs], budget=Budget(), asked=True))
        return found["streams.deadline_misses"].grade

    assert grade(stuttering(), stuttering()) is Grade.UNKNOWN
    assert grade(stuttering(), STEADY) is Grade.FAIL
    slow = Machine(lambda _: 14.0).stream(500)
    assert grade(slow, slow) is Grade.FAIL


def test_turns_are_put_one_behind_the_other() -> None:
    turn = Machine(lambda _: 2.0, lambda ran: ran * MIB).stream(100)
    looked, sizes = looks_of([turn, turn])
    assert np.array_equal(looked[100:], turn.looked_ns + 100 * PERIOD_MS * 1_000_000)
    assert np.array_equal(sizes[:100], sizes[100:])


def test_where_fp32_cannot_keep_up_either_the_length_of_the_queue_is_not_compared() -> None:
    fp32 = [Machine(lambda at: 2.0 if at < 85 else 14.0).stream(500)]
    little_more = [Machine(lambda at: 2.0 if at < 25 else 18.0).stream(500)]
    assert condition_finding("heat", "hot", little_more, fp32, budget=Budget()).grade is Grade.PASS
    much_more = [Machine(lambda at: 2.0 if at < 85 else 30.0).stream(500)]
    assert condition_finding("heat", "hot", much_more, fp32, budget=Budget()).grade is Grade.FLAG
