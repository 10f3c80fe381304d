"""Watches the scores of one variant's inferences. They are kept as they come, and looked at in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.manifest import DriftReference
from edgewise.contracts.telemetry import Sketch
from edgewise.device.drift.policy import DriftPolicy
from edgewise.device.drift.rule import Alarm, ScoreWatch
from edgewise.device.noise import noised, scale_of
from edgewise.device.ready import Ready
from edgewise.numerics.scores import ENERGY_SCORE, MARGIN, channels, energies, extremes, margins, range_names
from edgewise.runtimes.base import Array

BATCH = 200
"""Inferences between two looks: one in so many takes longer."""
ALARMS = "drift.alarms"
NOT_FINITE = "drift.not_finite"
"""Counters: alarms; inferences whose scores were not finite, which no test can take."""

DoubleArray = NDArray[np.float64]


class DriftWatch:
    """The drift of one variant; for the thread that infers."""

    def __init__(self, ready: Ready, *, policy: DriftPolicy | None = None) -> None:
        """Watch what the bundle has references for; see `unwatched` for the rest."""
        self.policy = policy or DriftPolicy()
        self.alarms: list[Alarm] = []
        """All so far; each test of each score alarms once."""
        self.reported = 0
        """How many of them were there at the last `drain`."""
        self._not_finite = 0
        references = {each.score: each for each in _references(ready)}
        self._readers = _readers(ready, references)
        watched = [name for reader in self._readers for name in reader.names if name in references]
        self.unwatched = tuple(sorted(references.keys() - set(watched)))
        """Scores that the bundle knows and this device cannot read."""
        chance = self.policy.chance / max(len(watched), 1)
        self._watches = {
            name: ScoreWatch(references[name], inputs=self.policy.horizon_inputs, chance=chance) for name in watched
        }
        self._turn = self._used = 0

    @property
    def scores(self) -> tuple[str, ...]:
        """What is watched; empty where the bundle has no reference."""
        return tuple(self._watches)

    def record(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Note one inference; every 200th that is noted takes longer, for all of them."""
        self._turn += 1
        if self._turn < self.policy.every or not self._watches:
            return
        self._turn = 0
        for reader in self._readers:
            reader.note(self._used, inputs, outputs)
        self._used += 1
        if self._used == BATCH:
            self.look()

    def look(self) -> list[Alarm]:
        """Look at what was noted since the last time; return the alarms that it raises."""
        used, self._used = self._used, 0
        found: list[Alarm] = []
        for reader in self._readers:
            values = reader.values(used)
            finite = np.isfinite(values).all(axis=1)
            self._not_finite += used - int(np.count_nonzero(finite))
            for name, column in zip(reader.names, values[finite].T, strict=True):
                if name in self._watches:
                    found += self._watches[name].observe(column)
        self.alarms += found
        return found

    def take_not_finite(self) -> int:
        """Return how many inferences had scores that were not finite, since the last call; 0 where noise is."""
        found, self._not_finite = self._not_finite, 0
        return found if self.policy.epsilon is None else 0

    def drain(self) -> dict[str, Sketch]:
        """Return the counts of each score since the last call, noised where the policy says so, and begin anew."""
        self.look()
        self.reported = len(self.alarms)
        found = {name: each.sketch() for name, each in self._watches.items()}
        if self.policy.epsilon is None or not found:
            return found
        scale = scale_of(self.policy.epsilon, sketches=len(found))
        return {name: Sketch(edges=each.edges, counts=noised(each.counts, scale)) for name, each in found.items()}


class _Beliefs:
    """Margin and energy score of a classifier's first output."""

    def __init__(self, output: str, *, stored: bool) -> None:
        self.names = (MARGIN,) if stored else (MARGIN, ENERGY_SCORE)
        self._output, self._stored = output, stored
        self._rows: Array | None = None

    def note(self, at: int, _inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        scores = outputs[self._output].reshape(-1)
        if self._rows is None:  # a model may not say beforehand how many there are
            self._rows = np.zeros((BATCH, scores.size), scores.dtype)
        self._rows[at] = scores

    def values(self, used: int) -> DoubleArray:
        if self._rows is None or not used:
            return np.zeros((0, len(self.names)))
        rows = self._rows[:used].astype(np.float64)
        with np.errstate(invalid="ignore"):  # what is not finite is told apart afterwards
            columns = [margins(rows, stored=self._stored)]
            if not self._stored:
                columns.append(energies(rows))
        return np.stack(columns, axis=1)


class _Ranges:
    """The least and the largest value of each channel of one input."""

    def __init__(self, name: str, index: int, count: int, *, last: bool) -> None:
        self.names = range_names(index, count)
        self._input, self._count, self._last = name, count, last
        self._rows = np.zeros((BATCH, 2 * count))

    def note(self, at: int, inputs: Mapping[str, Array], _outputs: Mapping[str, Array]) -> None:
        self._rows[at] = extremes(inputs[self._input], self._count, last=self._last)

    def values(self, used: int) -> DoubleArray:
        return self._rows[:used]


def _references(ready: Ready) -> tuple[DriftReference, ...]:
    for each in () if ready.manifest is None else ready.manifest.variants:
        if each.name == ready.variant:
            return each.drift
    return ()


def _readers(ready: Ready, references: Mapping[str, DriftReference]) -> Sequence[_Beliefs | _Ranges]:
    """Return what reads the scores that there are references for."""
    manifest, found = ready.manifest, list[_Beliefs | _Ranges]()
    if manifest is None:
        return found
    if ready.stored is not None:
        reader = _Beliefs(manifest.outputs[0].name, stored=ready.stored)
        found += [reader] if references.keys() & set(reader.names) else []
    last = manifest.preprocessing.image is not None and manifest.preprocessing.image.layout != "nchw"
    for index, port in enumerate(manifest.inputs):
        array = ready.session.inputs.get(port.name)
        if array is None or port.name not in ready.session.given:
            continue
        ranges = _Ranges(port.name, index, channels(array.shape, last=last), last=last)
        found += [ranges] if references.keys() & set(ranges.names) else []
    return found
