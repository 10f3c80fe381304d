from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.contracts.capture import (
    EDGES,
    MARGIN,
    MARGIN_EDGES,
    NOISE,
    NOT_FINITE,
    REPORTS,
    side_of,
)
from edgewise.contracts.telemetry import MOST_BYTES, MOST_SERIES, encode_envelope
from edgewise.device.capture.sketches import Capture, Report
from edgewise.device.uplink.collector import Collector, Reporter
from tests.unit.device.uplink.devices import RELEASE
from tests.unit.device.uplink.devices import Clock as Wall

IMAGE = {"image": np.zeros((1, 3, 4, 4), np.float32)}


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def reported(capture: Capture, clock: Clock) -> Report:
    clock.now_s += 3600
    found = capture.report()
    assert found is not None
    return found


def test_the_counts_are_those_of_each_samples_extremes() -> None:
    clock, draw = Clock(), np.random.default_rng(0)
    capture = Capture(IMAGE, clock=clock)
    samples = draw.normal(0, 10, (150, 1, 3, 4, 4)).astype(np.float32)
    margins = draw.uniform(0, 1, 150)
    for sample, margin in zip(samples, margins, strict=True):
        clock.now_s += 1
        capture.offer({"image": sample}, float(margin))
    found = reported(capture, clock)
    assert len(found.sketches) == 2 * 3 + 1
    for channel in range(3):
        for side, values in (("low", samples.min(axis=(1, 3, 4))), ("high", samples.max(axis=(1, 3, 4)))):
            sketch = found.sketches[f"capture.0.{channel}.{side}"]
            assert sketch.edges == EDGES
            expected = np.histogram(values[:, channel], [-math.inf, *EDGES, math.inf])[0]
            assert sketch.counts == tuple(expected)
    assert found.sketches[MARGIN].counts == tuple(np.histogram(margins, [-1, *MARGIN_EDGES, 2])[0])
    assert found.counters == {REPORTS: 1, NOISE: 0, NOT_FINITE: 0}
    assert sum(reported(capture, clock).sketches["capture.0.0.low"].counts) == 0


def test_one_inference_of_a_second_is_looked_at_and_none_is_kept() -> None:
    clock = Clock()
    capture = Capture(IMAGE, clock=clock)
    image = np.ones((1, 3, 4, 4), np.float32)
    for at_s in (0.1, 0.2, 0.9, 1.05, 1.9, 5.0):
        clock.now_s = at_s
        capture.offer({"image": image})
    image[:] = 1000
    counts = reported(capture, clock).sketches["capture.0.0.high"].counts
    assert sum(counts) == counts[np.searchsorted(EDGES, 1.0, side="right")] == 3


def test_what_is_no_number_and_what_is_no_measurement_is_left_out() -> None:
    clock = Clock()
    inputs: dict[str, NDArray[Any]] = {
        "ids": np.zeros((1, 8), np.int64),
        "x": np.zeros((1, 100), np.float32),
        "pixels": np.zeros(4, np.uint8),
    }
    capture = Capture(inputs, clock=clock)
    capture.offer(inputs | {"x": np.full((1, 100), np.nan, np.float32)})
    found = reported(capture, clock)
    assert {side.input for name in found.sketches if (side := side_of(name)) is not None} == {0, 1}
    assert found.counters[NOT_FINITE] == 1
    assert all(sum(sketch.counts) == 0 for sketch in found.sketches.values())


def test_values_beyond_the_edges_are_clipped_into_the_open_bins() -> None:
    clock = Clock()
    capture = Capture(IMAGE, clock=clock)
    capture.offer({"image": np.array([-1e30, 1e30] * 24, np.float32).reshape(1, 3, 4, 4)})
    found = reported(capture, clock)
    assert found.sketches["capture.0.0.low"].counts[0] == 1
    assert found.sketches["capture.0.0.high"].counts[-1] == 1


def test_reports_come_when_they_are_due_and_go_into_a_window_that_can_be_sent() -> None:
    clock, wall = Clock(), Wall()
    capture = Capture({f"x{number:02}": np.zeros((1, 64), np.float32) for number in range(9)}, clock=clock, epsilon=0.1)
    collector = Collector(Reporter(device="d", device_class="c", boot="b"), wall.dating)
    window = collector.running(RELEASE, "int8")
    for _ in range(2):
        capture.into(window)
    assert collector.drain()[0].sketches == {}
    clock.now_s = 10 * 3600.0  # slept through nine of them
    for _ in range(2):
        capture.into(window)
    (envelope,) = collector.drain()
    assert envelope.counters == {REPORTS: 1, NOISE: capture.noise_scale}
    assert len(envelope.sketches) < MOST_SERIES
    assert len(encode_envelope(envelope)) < MOST_BYTES


class TestNoise:
    def test_the_scale_follows_from_epsilon_and_the_number_of_sketches(self) -> None:
        assert Capture(IMAGE, epsilon=1.0).noise_scale == 14
        assert Capture(IMAGE, epsilon=0.3).noise_scale == 47
        for epsilon in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="epsilon"):
                Capture(IMAGE, epsilon=epsilon)

    def test_neighbouring_streams_differ_by_no_more_than_the_noise_is_made_for(self) -> None:
        draw = np.random.default_rng(3)
        stream = [(at_s / 3, draw.normal(0, 9, (1, 3, 4, 4)).astype(np.float32)) for at_s in range(60)]

        def counts(times: list[tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]) -> list[int]:
            clock = Clock()
            capture = Capture(IMAGE, clock=clock)
            for clock.now_s, values in times:
                capture.offer({"image": values}, 0.5)
            return [each for sketch in reported(capture, clock).sketches.values() for each in sketch.counts]

        whole = counts(stream)
        for left_out in range(60):
            other = counts(stream[:left_out] + stream[left_out + 1 :])
            assert sum(abs(one - two) for one, two in zip(whole, other, strict=True)) <= 2 * 7

    def test_a_noised_report_says_no_exact_count(self) -> None:
        clock = Clock()
        capture = Capture(IMAGE, epsilon=1.0, clock=clock, below=Random(4).randrange)  # noqa: S311 - a test's own
        capture.offer({"image": np.full((1, 3, 4, 4), np.nan, np.float32)})
        found = reported(capture, clock)
        assert NOT_FINITE not in found.counters
        assert sum(found.sketches["capture.0.0.low"].counts) > 0
