"""What one variant did, on its way from the model that answers to the counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgewise.contracts.histogram import Histogram
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import Sketch


class Measured(NamedTuple):
    """What one variant did since the last look: the parts of an envelope of telemetry."""

    histograms: Mapping[str, Histogram]
    counters: Mapping[str, int]
    outcomes: Mapping[OutcomeKind, int]
    sketches: Mapping[str, Sketch]
