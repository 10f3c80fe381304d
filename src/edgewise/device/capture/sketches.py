"""How far each channel of the inputs goes, as counts between fixed edges.

Of every `every_s` seconds one inference is looked at, the first: its least and its largest value of each channel are
kept as numbers, and binned 64 at a time. Memory is fixed by the number of channels.

Privacy, where `epsilon` is given: see `device.noise`. Seconds are cut at fixed times, so taking one inference out of a
stream, or adding it, changes at most the one that is looked at in its slot, as does another one in its place. An
inference is in one report only, so all reports together are epsilon-differentially private for a single inference. Not
covered: somebody who is in k inferences (k epsilon), and everything else that telemetry tells (how many inferences,
how fast, their outcomes). What is not finite is counted in no sketch, and that count is not sent where noise is.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.capture import (
    EDGES,
    MARGIN,
    MARGIN_EDGES,
    NOISE,
    NOT_FINITE,
    REPORTS,
)
from edgewise.contracts.telemetry import Sketch
from edgewise.device.noise import Below, noised, scale_of
from edgewise.device.uplink.collector import Window
from edgewise.numerics.channels import captured_channels, extremes, sides

BATCH = 64
Arrays = Mapping[str, NDArray[Any]]


class Report(NamedTuple):
    """What is sent: sketches by name, and counters."""

    sketches: dict[str, Sketch]
    counters: dict[str, int]


class Capture:
    """Sketches of one model's inputs; any thread may use it."""

    def __init__(
        self,
        inputs: Arrays,
        *,
        every_s: float = 1.0,
        report_s: float = 3600.0,
        epsilon: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        below: Below = secrets.randbelow,
    ) -> None:
        """Take arrays as the model's inputs are: their shapes and types count, not their values.

        Raises ValueError for an `epsilon` that is not above 0.
        """
        if epsilon is not None and not (epsilon > 0 and math.isfinite(epsilon)):
            raise ValueError(f"epsilon {epsilon}, required a number above 0")
        self._channels = captured_channels(inputs)
        self._every_s, self._report_s, self._clock, self._below = every_s, report_s, clock, below
        count = sum(self._channels.values())
        self.noise_scale = 0 if epsilon is None else scale_of(epsilon, sketches=2 * count + 1)
        """Of the noise on each count; 0 without."""
        self._lock = threading.Lock()
        self._extremes = np.zeros((BATCH, 2, count))
        self._margins = np.zeros(BATCH)
        self._used = self._not_finite = 0
        self._counts = np.zeros((2, count, len(EDGES) + 1), np.int64)
        self._margin_counts = np.zeros(len(MARGIN_EDGES) + 1, np.int64)
        self._slot = -1
        self._report_at = clock() + report_s

    @property
    def is_due(self) -> bool:
        """Whether the next inference that is offered is looked at."""
        return int(self._clock() / self._every_s) != self._slot

    def offer(self, inputs: Arrays, margin: float | None = None) -> None:
        """Look at an inference, where one is due; `margin` is top-1 less top-2 probability. The arrays are not kept."""
        slot = int(self._clock() / self._every_s)
        if slot == self._slot:
            return
        with self._lock:
            self._slot = slot
            row = self._extremes[self._used]
            row[:] = extremes(inputs, self._channels)
            if not np.isfinite(row).all():
                self._not_finite += 1
                return
            self._margins[self._used] = math.nan if margin is None else margin
            self._used += 1
            if self._used == BATCH:
                self._bin()

    def report(self, *, last: bool = False) -> Report | None:
        """Return the sketches since the last report and begin anew, or None until `report_s` are over.

        The `last` one of a model comes at any time.
        With noise a report comes also where nothing was looked at: its absence would tell.
        """
        with self._lock:
            late_s = self._clock() - self._report_at
            if late_s < 0 and not last:
                return None
            self._report_at += self._report_s * max(0, 1 + late_s // self._report_s)
            self._bin()
            sketches = {
                side.name: Sketch(edges=EDGES, counts=self._told(self._counts[end, at]))
                for at, pair in enumerate(sides(self._channels))
                for end, side in enumerate(pair)
            }
            sketches[MARGIN] = Sketch(edges=MARGIN_EDGES, counts=self._told(self._margin_counts))
            counters = {REPORTS: 1, NOISE: self.noise_scale}
            if not self.noise_scale:
                counters[NOT_FINITE] = self._not_finite
            self._counts[:], self._margin_counts[:], self._not_finite = 0, 0, 0
        return Report(sketches, counters)

    def into(self, window: Window) -> None:
        """Add a report to a window of telemetry, where one is due."""
        found = self.report()
        if found is None:
            return
        for name, sketch in found.sketches.items():
            window.sketch(name, sketch)
        for name, count in found.counters.items():
            window.count(name, count)

    def _bin(self) -> None:
        found, self._used = self._extremes[: self._used], 0
        bins = np.searchsorted(EDGES, found, side="right")
        for end in (0, 1):
            for at in range(found.shape[2]):
                self._counts[end, at] += np.bincount(bins[:, end, at], minlength=len(EDGES) + 1)
        margins = self._margins[: len(found)]
        known = np.searchsorted(MARGIN_EDGES, margins[np.isfinite(margins)], side="right")
        self._margin_counts += np.bincount(known, minlength=len(MARGIN_EDGES) + 1)

    def _told(self, counts: NDArray[np.int64]) -> tuple[int, ...]:
        return noised(counts.tolist(), self.noise_scale, self._below)
