"""What verification says of speed: the work of a model, not what else the machine does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgewise.forge.progress import Silent
from edgewise.forge.verify.cost import measure_cost
from edgewise.runtimes.base import Array, Session
from tests.unit.verify.paired_subjects import subject_of


class Working:
    """A session that works for milliseconds; its core is taken away for some more."""

    def __init__(self, session: Session, *, away_s: float) -> None:
        self._session, self._away_s = session, away_s
        self._values = np.random.default_rng(0).random(1_000_000)  # so much that a cold core does not count
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        np.sort(self._values)
        time.sleep(self._away_s)  # off the core, as other programs push it
        return self._session.run(feeds)


def test_a_variant_is_not_slow_because_its_core_was_taken_away(data: Path) -> None:
    subject = subject_of(data, data / "model.onnx", samples=4)
    subject = msgspec.structs.replace(
        subject, reference=Working(subject.reference, away_s=0), variant=Working(subject.variant, away_s=0.02)
    )
    _, found = measure_cost(subject, power=None, progress=Silent())
    assert found["speedup"] > 0.6
    assert found["latency_p50_ms"] > 20
