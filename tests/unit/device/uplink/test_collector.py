from __future__ import annotations

import pytest

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import LATENCY_MS, MOST_SERIES, MOST_WINDOW_MS, REQUESTS, Sketch
from edgewise.device.uplink.collector import Collector, Reporter, new_boot
from tests.unit.device.uplink.devices import NOW_MS, RELEASE, Clock

OTHER = "b" * 64


def collector(clock: Clock) -> Collector:
    return Collector(Reporter(device="device-1", device_class="pi5", boot=new_boot()), clock.dating)


def test_a_window_holds_what_was_counted_and_the_next_begins_empty() -> None:
    clock = Clock()
    mine = collector(clock)
    window = mine.running(RELEASE, "int8")
    for values in ([1.0, 2.0], [3.0]):
        window.histogram(LATENCY_MS, histogram_of(values))
        window.outcome(OutcomeKind.LOCAL, len(values))
        window.count(REQUESTS, len(values))
        window.sketch("margin", Sketch(edges=(0.5,), counts=(1, 2)))
        window.crashed()
        window.signature_failed()
    window.crash_loop()
    clock.advance(300_000)
    (first,) = mine.drain()
    assert first.histograms == {LATENCY_MS: histogram_of([1.0, 2.0, 3.0])}
    assert (first.counters, first.outcomes) == ({REQUESTS: 3}, {OutcomeKind.LOCAL: 3})
    assert first.sketches == {"margin": Sketch(edges=(0.5,), counts=(2, 4))}
    assert (first.crashes, first.signature_failures, first.crash_loop, first.sequence) == (2, 2, True, 0)
    assert (first.start_unix_ms, first.end_unix_ms) == (NOW_MS, NOW_MS + 300_000)
    clock.advance(1000)
    (second,) = mine.drain()
    assert (second.histograms, second.crashes, second.crash_loop, second.sequence) == ({}, 0, False, 1)
    assert (second.start_unix_ms, second.end_unix_ms) == (NOW_MS + 300_000, NOW_MS + 301_000)


def test_variants_are_told_apart_and_one_that_does_nothing_is_told_only_while_it_runs() -> None:
    mine = collector(Clock())
    mine.running(RELEASE, "int8").count(REQUESTS)
    mine.window(OTHER, "int8").crash_loop()
    assert [(each.release, each.crash_loop) for each in mine.drain()] == [(RELEASE, False), (OTHER, True)]
    mine.running(OTHER, "w4")
    assert [(each.release, each.variant) for each in mine.drain()] == [(OTHER, "w4")]


@pytest.mark.parametrize("jump_ms", [-NOW_MS, -10_000_000, 10_000_000, 10**12])
def test_a_clock_that_is_set_makes_no_window_of_years_nor_a_negative_one(jump_ms: int) -> None:
    clock = Clock()
    mine = collector(clock)
    mine.running(RELEASE, "int8")
    clock.advance(60_000)
    clock.wall_ms += jump_ms
    (found,) = mine.drain()
    assert found.end_unix_ms - found.start_unix_ms == 60_000
    assert found.end_unix_ms == clock.wall_ms


def test_a_device_that_slept_for_weeks_makes_a_window_that_can_be_sent() -> None:
    clock = Clock()
    mine = collector(clock)
    mine.running(RELEASE, "int8")
    clock.advance(10 * MOST_WINDOW_MS)
    (found,) = mine.drain()
    assert found.end_unix_ms - found.start_unix_ms == MOST_WINDOW_MS


def test_what_no_envelope_takes_is_refused_where_it_is_counted() -> None:
    window = collector(Clock()).running(RELEASE, "int8")
    with pytest.raises(ValueError, match="metric"):
        window.count("Not A Metric")
    window.sketch("margin", Sketch(edges=(0.5,), counts=(1, 2)))
    with pytest.raises(ValueError, match="edges"):
        window.sketch("margin", Sketch(edges=(0.6,), counts=(1, 2)))
    for number in range(MOST_SERIES):
        window.count(f"n{number}")
    with pytest.raises(ValueError, match="one series more"):
        window.count("one_more")
    with pytest.raises(ValueError, match="release"):
        collector(Clock()).window("no digest", "int8")


class TestDating:
    def test_the_clock_is_believed_until_a_server_has_said_the_time(self) -> None:
        clock = Clock(0)
        assert (clock.dating.now_ms(), clock.dating.is_told) == (0, False)
        clock.dating.told("Fri, 27 Nov 2026 05:00:00 GMT")
        assert (clock.dating.now_ms(), clock.dating.is_told) == (1_795_755_600_000, True)
        assert clock.dating.moved_ms() == 1_795_755_600_000
        assert clock.dating.moved_ms() == 0
        clock.advance(5_000)
        assert clock.dating.now_ms() == 1_795_755_605_000
        clock.wall_ms = 1_795_755_606_000  # set, and right to a second
        assert clock.dating.now_ms() == 1_795_755_606_000
        assert clock.dating.moved_ms() == 0
        clock.wall_ms = 10**13  # set, and wrong
        assert clock.dating.now_ms() == 1_795_755_605_000

    @pytest.mark.parametrize("date", ["", "yesterday", "Fri, 27 Nov 99999 05:00:00 GMT", "0"])
    def test_what_is_no_date_says_nothing(self, date: str) -> None:
        clock = Clock()
        clock.dating.told(date)
        assert (clock.dating.now_ms(), clock.dating.is_told) == (NOW_MS, False)

    def test_a_clock_that_is_set_before_any_server_answered_moves_what_waits(self) -> None:
        clock = Clock(0)
        clock.wall_ms += 10**12
        assert clock.dating.moved_ms() == 10**12
        clock.wall_ms -= 30_000
        assert clock.dating.moved_ms() == 0
