"""What devices tell of their inputs for the next calibration: how far each channel goes, never a value.

A sketch of `capture.I.C.high` counts, over the inferences that were looked at, the largest value that channel C of
input I had in each; `.low` the least; `capture.margin` the model's top-1 less top-2 probability. Inputs are numbered by
their names in order. All devices use these edges, so that counts add up.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from edgewise.contracts.base import Value
from edgewise.contracts.telemetry import Sketch

CAPTURE_VERSION = 1
PREFIX = "capture."
MARGIN = "capture.margin"
REPORTS = "capture.reports"
"""Counter: how often a device reported sketches."""
NOISE = "capture.noise"
"""Counter: the sum of the reports' noise scales; 0 where none was added."""
NOT_FINITE = "capture.not_finite"
"""Counter: inferences that were looked at and held a value that is no number."""
SEALED_SAMPLE = b"edgewise-sample-1"
"""What a sealed sample is bound to."""
MOST_CHANNELS = 24
"""Of all inputs together: two sketches each, beside those of drift, in the 64 of an envelope."""

_MAGNITUDES = tuple(float(f"{2 ** (step / 2):.4g}") for step in range(-16, 33))
EDGES = (*(-each for each in reversed(_MAGNITUDES)), 0.0, *_MAGNITUDES)
"""Half octaves from 2^-8 to 2^16 on either side of 0, to four digits; the outermost bins are open: clipping."""
MARGIN_EDGES = tuple(step / 20 for step in range(1, 20))

_NAME = re.compile(r"capture\.([0-9]{1,2})\.([0-9]{1,2})\.(low|high)")


class Side(NamedTuple):
    """One end of one channel: the number of the input, that of the channel, whether it is the largest value."""

    input: int
    channel: int
    is_high: bool

    @property
    def name(self) -> str:
        """The name of its sketch."""
        return f"{PREFIX}{self.input}.{self.channel}.{'high' if self.is_high else 'low'}"


def side_of(name: str) -> Side | None:
    """Return what a sketch is of, or None where it is of no channel.

    >>> side_of("capture.0.2.high")
    Side(input=0, channel=2, is_high=True)
    """
    found = _NAME.fullmatch(name)
    return Side(int(found[1]), int(found[2]), found[3] == "high") if found else None


class FleetCapture(Value, kw_only=True):
    """What all devices with a release told, added up by the server."""

    format_version: int = CAPTURE_VERSION
    product: str
    release: str
    """SHA-256 of the bundle's manifest."""
    start_ms: int
    stop_ms: int
    reports: int
    noise: int
    """Sum of the reports' noise scales."""
    sketches: dict[str, Sketch]


def noise_bias(scale: float) -> float:
    """Return the mean of a count of 0 with discrete Laplace noise of this scale, clipped at 0.

    With q = exp(-1 / scale) a value k has the probability (1 - q) / (1 + q) * q^|k|; the sum over k > 0 is closed.
    """
    if scale <= 0:
        return 0.0
    q = math.exp(-1 / scale)
    return q / (1 - q * q)


def noise_variance(scale: float) -> float:
    """Return the variance of a clipped count of 0; see `noise_bias`."""
    if scale <= 0:
        return 0.0
    q = math.exp(-1 / scale)
    return q / (1 - q) ** 2 - noise_bias(scale) ** 2
