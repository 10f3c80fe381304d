from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from edgewise.errors import DataError
from edgewise.runtimes.timing import Plan, Timings, busy_clock, interleave, speedup
from tests.unit.measure.clocks import FEEDS, Machine

MS = 1_000_000
SLOW = Plan(rounds=12, precision=0.0)


def test_samples_are_the_time_of_one_run() -> None:
    machine = Machine()
    sessions = {"fp32": machine.session("fp32", lambda _: 6 * MS), "int8": machine.session("int8", lambda _: 3 * MS)}
    timings = interleave(sessions, FEEDS, plan=SLOW, clock=machine.clock)
    assert timings["fp32"].per_round == 1
    assert timings["fp32"].samples_ms == (6.0,) * 12
    assert timings["int8"].samples_ms == (3.0,) * 12
    assert speedup(timings["fp32"], timings["int8"])[0] == 2.0


def test_every_round_runs_each_session_on_the_same_sample_in_an_order_drawn_anew() -> None:
    machine = Machine()
    sessions = {name: machine.session(name, lambda _: 5 * MS) for name in "abc"}
    interleave(sessions, FEEDS, plan=Plan(rounds=60, warmup=1, precision=0.0), clock=machine.clock)
    rounds = machine.log[6:]  # one untimed and one timed run each before
    assert len(rounds) == 180
    orders = []
    for index in range(60):
        of_round = rounds[3 * index : 3 * index + 3]
        assert {feed for _, feed in of_round} == {index % 3}
        assert {name for name, _ in of_round} == {"a", "b", "c"}
        orders.append("".join(name for name, _ in of_round))
    # Nobody has the same neighbour for long.
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_the_order_follows_from_the_seed() -> None:
    def log(seed: int) -> list[tuple[str, int]]:
        machine = Machine()
        sessions = {name: machine.session(name, lambda _: 5 * MS) for name in "abcdef"}
        interleave(sessions, FEEDS, plan=Plan(rounds=5, seed=seed), clock=machine.clock)
        return machine.log

    assert log(1) == log(1)
    assert log(1) != log(2)


def test_a_slow_machine_during_some_rounds_cancels_in_the_ratio() -> None:
    machine = Machine()

    def mood() -> int:
        return 4 if len(machine.log) % 40 > 20 else 1

    sessions = {
        "fp32": machine.session("fp32", lambda _: 9 * MS * mood()),
        "int8": machine.session("int8", lambda _: 3 * MS * mood()),
    }
    timings = interleave(sessions, FEEDS, plan=Plan(rounds=60, precision=0.0, budget_s=1e6), clock=machine.clock)
    assert timings["fp32"].max_ms / timings["fp32"].p50_ms > 1.5
    ratio, interval = speedup(timings["fp32"], timings["int8"])
    assert ratio == 3.0
    assert (interval.low, interval.high) == (3.0, 3.0)


def test_a_fast_model_is_repeated_within_a_sample_and_settled_before_it() -> None:
    machine = Machine()
    sessions = {"a": machine.session("a", lambda _: 30_000), "b": machine.session("b", lambda _: 60_000)}
    timings = interleave(sessions, FEEDS, plan=Plan(rounds=10, warmup=2, precision=0.0), clock=machine.clock)
    assert timings["a"].repeats == timings["b"].repeats == 4
    assert timings["a"].samples_ms == pytest.approx((0.03,) * 10 * 21)
    runs = {name: sum(each == name for each, _ in machine.log) for name in "ab"}
    assert runs["b"] == 1 + 2 + 10 * (34 + 21 * 4)  # 2 ms before each turn, and 5 ms of it at the slower one's pace
    assert runs["a"] == 1 + 2 + 10 * (64 + 21 * 4)  # no more than 64 runs before it


def test_a_turn_is_a_stream_of_the_same_samples_for_every_session() -> None:
    machine = Machine()
    sessions = {"a": machine.session("a", lambda _: 2 * MS), "b": machine.session("b", lambda _: 3 * MS)}
    timings = interleave(sessions, FEEDS, plan=Plan(rounds=6, warmup=1, precision=0.0), clock=machine.clock)
    turns = [machine.log[at : at + 2] for at in range(4, len(machine.log), 2)]
    assert len(turns) == 12
    assert all(one[0] == other[0] for one, other in turns)
    assert {tuple(feed for _, feed in turn) for turn in turns} == {(0, 1), (2, 0), (1, 2)}
    assert timings["a"].per_round == timings["b"].per_round == 2
    assert len(timings["a"].samples_ms) == 12


def test_a_unit_that_powers_up_during_a_turn_hardly_slows_it() -> None:
    """Integers need 1 ms of work in a row until they run at 0.2 ms instead of 1 ms; others' turns power them down."""
    machine, row = Machine(), [0, 0]

    def cost(_: int) -> int:
        last, length = row
        length = length + 1 if last == len(machine.log) - 1 else 1
        row[:] = len(machine.log), length
        return MS if length == 1 else MS // 5

    sessions = {"fp32": machine.session("fp32", lambda _: MS), "int8": machine.session("int8", cost)}
    timings = interleave(sessions, FEEDS, plan=Plan(rounds=40, precision=0.0), clock=machine.clock)
    assert speedup(timings["fp32"], timings["int8"])[0] == pytest.approx(5.0)


def test_samples_of_different_shapes_all_run_in_every_round_and_a_speed_up_is_of_their_sum() -> None:
    """Short texts gain much and long ones little; most are short, and most of the time goes into the long ones."""
    machine = Machine()
    feeds = [{"x": np.full(length, at, np.float32)} for at, length in enumerate((1, 1, 1, 30))]

    def cost(short_ms: int, long_ms: int) -> Callable[[int], int]:
        return lambda _: (long_ms if machine.log[-1][1] == 3 else short_ms) * MS

    sessions = {"fp32": machine.session("fp32", cost(4, 40)), "int8": machine.session("int8", cost(1, 33))}
    timings = interleave(sessions, feeds, plan=Plan(rounds=6, precision=0.0), clock=machine.clock)
    assert timings["fp32"].per_round == 4
    assert speedup(timings["fp32"], timings["int8"])[0] == pytest.approx(52 / 36)


def test_the_speed_up_is_of_rounds() -> None:
    reference = Timings((4.0, 2.0, 8.0, 4.0), 1, (), 2)
    variant = Timings((1.0, 2.0, 3.0, 3.0), 1, (), 2)
    assert reference.rounds_ms == (3.0, 6.0)
    assert speedup(reference, variant)[0] == 2.0


def test_a_slow_model_is_neither_repeated_nor_settled() -> None:
    machine = Machine()
    interleave({"a": machine.session("a", lambda _: 20 * MS)}, FEEDS, plan=Plan(rounds=10), clock=machine.clock)
    assert len(machine.log) == 1 + 3 + 10


def test_warm_up_is_not_counted() -> None:
    machine = Machine()
    session = machine.session("a", lambda run: 900 * MS if run < 4 else 3 * MS)
    assert interleave({"a": session}, FEEDS, plan=SLOW, clock=machine.clock)["a"].max_ms == 3.0


def test_measuring_stops_when_the_time_is_spent_but_not_before_the_least_rounds() -> None:
    for budget_s, expected in ((1.0, 18), (0.0, 4)):
        machine = Machine()
        session = machine.session("a", lambda _: 50 * MS)
        plan = Plan(rounds=1000, least=4, warmup=1, budget_s=budget_s)
        assert len(interleave({"a": session}, FEEDS, plan=plan, clock=machine.clock)["a"].samples_ms) == expected


def test_measuring_stops_when_the_ratio_is_known() -> None:
    def rounds(precision: float) -> int:
        machine, noise = Machine(), np.random.default_rng(0)
        sessions = {
            name: machine.session(name, lambda _: int(5 * MS * noise.uniform(0.8, 1.2))) for name in ("fp32", "int8")
        }
        plan = Plan(rounds=1000, precision=precision, budget_s=1e6)
        return len(interleave(sessions, FEEDS, plan=plan, clock=machine.clock)["fp32"].samples_ms)

    assert rounds(0.5) == 100
    assert 100 < rounds(0.03) < 1000
    assert rounds(0.0) == 1000


def test_progress_rises_to_one() -> None:
    machine = Machine()
    seen: list[float] = []
    session = machine.session("a", lambda _: 5 * MS)
    interleave({"a": session}, FEEDS, plan=Plan(rounds=4), clock=machine.clock, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_garbage_collection_is_off_while_timing_and_on_again_after_a_failure() -> None:
    machine = Machine()
    states = []

    def cost(run: int) -> int:
        states.append(gc.isenabled())
        if run == 9:
            raise RuntimeError("broken")
        return 5 * MS

    with pytest.raises(RuntimeError, match="broken"):
        interleave({"a": machine.session("a", cost)}, FEEDS, plan=SLOW, clock=machine.clock)
    assert not any(states)
    assert gc.isenabled()


def test_percentiles() -> None:
    timings = Timings(tuple(float(value) for value in range(1, 102)))
    assert (timings.p50_ms, timings.p90_ms, timings.p99_ms, timings.max_ms) == (51, 91, 100, 101)


def test_the_interval_holds_the_ratio_and_follows_from_the_seed() -> None:
    noise = np.random.default_rng(0)
    reference = Timings(tuple(noise.uniform(1.8, 2.2, 80)))
    variant = Timings(tuple(noise.uniform(0.9, 1.1, 80)))
    ratio, interval = speedup(reference, variant, seed=3)
    assert interval.low < ratio < interval.high
    assert interval.low > 1.9
    assert interval.high < 2.1
    assert speedup(reference, variant, seed=3) == (ratio, interval)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(DataError):
        interleave({}, FEEDS, plan=SLOW)
    with pytest.raises(DataError):
        interleave({"a": Machine().session("a", lambda _: 1)}, [], plan=SLOW)


def test_a_speed_up_is_of_the_time_worked_where_that_is_known() -> None:
    """Another program takes the core away during most of the variant's turns: only the wall clock sees that."""
    machine, busy = Machine(), [0]

    def cost(own_ms: int, waits_ms: int) -> Callable[[int], int]:
        def passing(_: int) -> int:
            busy[0] += own_ms * MS
            return (own_ms + waits_ms) * MS

        return passing

    sessions = {"fp32": machine.session("fp32", cost(6, 0)), "int8": machine.session("int8", cost(3, 9))}
    timings = interleave(sessions, FEEDS, plan=SLOW, clock=machine.clock, busy=lambda: busy[0])
    assert timings["int8"].p50_ms == 12.0
    assert speedup(timings["fp32"], timings["int8"])[0] == 2.0


def test_only_a_runtime_that_works_in_the_calling_thread_is_timed_by_it() -> None:
    assert busy_clock("onnxruntime", threads=1) is not None
    assert busy_clock("onnxruntime", threads=2) is None
    assert busy_clock("openvino", threads=1) is None
