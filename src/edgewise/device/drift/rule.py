"""One score against its reference.

Two tests share the chance of a false alarm. The Page-Hinkley test (Page, Biometrika 41, 1954; Hinkley, Biometrika 58,
1971) adds up how far values are beyond the mean and an allowance, upwards and downwards: fast for a mean that moves.
Windows of values are held against cut-offs for the stability index and the Kolmogorov-Smirnov distance, and a run of
them in a row counts: for distributions that change their form. Inputs are taken as independent.
"""

from __future__ import annotations

import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from edgewise.contracts.base import Value
from edgewise.contracts.manifest import DriftReference, PageHinkley
from edgewise.contracts.telemetry import Sketch
from edgewise.numerics.drift_rules import height, largest_gap, run_length, stability, walk

DoubleArray = NDArray[np.float64]
PSI, KS, UP, DOWN = "psi", "ks", "page_hinkley_up", "page_hinkley_down"
TESTS = 4
"""Of one score; each has its part of the chance."""


class Alarm(Value, kw_only=True):
    """A score that has left its reference. `first` and `last` count the inputs that were looked at, from 0."""

    score: str
    test: str
    first: int
    last: int
    figure: float
    cutoff: float
    reason: str


class ScoreWatch:
    """What one score did so far. Each of its tests alarms once."""

    def __init__(self, reference: DriftReference, *, inputs: float, chance: float) -> None:
        """Watch for false alarms with at most `chance` within so many `inputs`."""
        self.reference = reference
        self._edges = np.array(reference.edges)
        self._expected = np.array(reference.shares)
        self._counts = np.zeros(self._edges.size + 1, np.int64)
        self._open = np.zeros(0, np.int64)
        """Bins of the window that is not full yet."""
        self._seen = 0
        self._alarmed: set[str] = set()
        self._runs = {PSI: 0, KS: 0}
        windows = max(inputs / reference.window, 1.0)
        self.run = run_length(windows=windows, exceeds=1 - reference.keep, chance=chance / TESTS)
        """Windows in a row that have to be beyond a cut-off."""
        given = reference.page_hinkley
        self._walks = () if isinstance(given, UnsetType) else _walks(given, inputs, chance / TESTS)

    def observe(self, values: DoubleArray) -> list[Alarm]:
        """Take the next values `[n]`, all finite; return the alarms that they raise."""
        found: list[Alarm] = []
        for each in self._walks:
            found += self._walked(each, values)
        bins = np.searchsorted(self._edges, values, side="right")
        self._counts += np.bincount(bins, minlength=self._counts.size)
        start = self._seen - self._open.size
        bins = np.concatenate([self._open, bins])
        window = self.reference.window
        full = bins.size // window
        for at in range(full):
            found += self._window(bins[at * window : (at + 1) * window], start + at * window)
        self._open = bins[full * window :]
        self._seen += values.size
        return found

    def sketch(self) -> Sketch:
        """Return the counts since the last call, and begin anew: a delta."""
        found = Sketch(edges=self.reference.edges, counts=tuple(self._counts.tolist()))
        self._counts[:] = 0
        return found

    def _walked(self, walked: _Walk, values: DoubleArray) -> list[Alarm]:
        path = walk(walked.sign * (values - walked.mean) - walked.allowance, walked.sum)
        walked.sum = float(path[-1]) if path.size else walked.sum
        rest = np.flatnonzero(path <= 0)
        above = np.flatnonzero(path > walked.height)
        first = walked.since
        if rest.size:
            walked.since = self._seen + int(rest[-1]) + 1
        if not above.size or walked.test in self._alarmed:
            return []
        self._alarmed.add(walked.test)
        last = int(above[0])
        before = rest[rest < last]
        first = self._seen + int(before[-1]) + 1 if before.size else first
        figure = float(path[last])
        way = "above" if walked.sign > 0 else "below"
        words = f"{self.reference.score} stays {way} its mean {walked.mean:.3g}: the sum is {figure:.3g}"
        return [self._alarm(walked.test, first, self._seen + last, figure, walked.height, words)]

    def _window(self, bins: NDArray[np.int64], start: int) -> list[Alarm]:
        reference = self.reference
        shares = np.bincount(bins, minlength=self._counts.size) / bins.size
        rows = (
            (PSI, float(stability(shares, self._expected)), reference.psi_cutoff),
            (KS, float(largest_gap(shares, self._expected)), reference.ks_cutoff),
        )
        found = []
        for test, figure, cutoff in rows:
            self._runs[test] = self._runs[test] + 1 if figure > cutoff else 0
            if self._runs[test] >= self.run and test not in self._alarmed:
                self._alarmed.add(test)
                first = start - (self.run - 1) * reference.window
                words = f"{self.run} windows of {reference.window} in a row, the last has {test} = {figure:.3g}"
                found.append(self._alarm(test, first, start + bins.size - 1, figure, cutoff, words))
        return found

    def _alarm(self, test: str, first: int, last: int, figure: float, cutoff: float, words: str) -> Alarm:
        return Alarm(
            score=self.reference.score,
            test=test,
            first=first,
            last=last,
            figure=figure,
            cutoff=cutoff,
            reason=f"{words}, cut-off {cutoff:.3g}, inputs {first} to {last}",
        )


class _Walk:
    """One side of the Page-Hinkley test."""

    def __init__(self, test: str, sign: float, given: PageHinkley, height_: float) -> None:
        self.test, self.sign, self.height = test, sign, height_
        self.mean, self.allowance = given.mean, given.allowance
        self.sum, self.since = 0.0, 0


def _walks(given: PageHinkley, inputs: float, chance: float) -> tuple[_Walk, ...]:
    return (
        _Walk(UP, 1.0, given, height(given.rate_up, inputs=inputs, chance=chance)),
        _Walk(DOWN, -1.0, given, height(given.rate_down, inputs=inputs, chance=chance)),
    )
