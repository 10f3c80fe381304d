"""The documents of `edgewise data select` and `edgewise data check`: what their `--json` prints."""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value
from edgewise.contracts.verification import Finding

CURATION_VERSION = 1


class Method(StrEnum):
    """How calibration samples are chosen."""

    COVER = "cover"
    """Greedy set cover over the outlier channels of the activations."""
    K_CENTRE = "k-centre"
    """Farthest-first over the activations' peaks."""
    RANDOM = "random"


class Quality(Value, kw_only=True):
    """How well a method's samples stand for their pool: means over some seeds, shares from 0 to 1."""

    method: Method
    coverage: float
    """Weight of the outlier channels that are covered / weight of all."""
    coverage_low: float
    coverage_high: float
    """The least and the most over the seeds."""
    range_share: float
    """Mean over tensors of the chosen samples' range / the pool's."""
    range_spread: float
    """Mean over tensors of the standard deviation of that range over the seeds / the pool's range."""


class Picked(Value, kw_only=True):
    """One chosen sample: its pool and its place there."""

    pool: str
    index: int


class Selection(Value, kw_only=True):
    """What `edgewise data select` chose, and how well it stands for the pool."""

    format_version: int = CURATION_VERSION
    method: Method
    seed: int
    pools: dict[str, int]
    """Samples of each pool."""
    observed: int
    """Samples that fp32 was run on: the choice is among these."""
    outlier_channels: int
    coverage: float
    """Of the samples that were chosen."""
    range_share: float
    compared: tuple[Quality, ...]
    """Every method on random parts of the pool."""
    samples: tuple[Picked, ...]
    """Best first: the first half of them is a good choice of half as many."""
    written: str


class DataCheck(Value, kw_only=True):
    """What `edgewise data check` found."""

    format_version: int = CURATION_VERSION
    folder: str
    model: str
    task: str
    splits: dict[str, int]
    findings: tuple[Finding, ...]
    holds: bool
    """Whether no finding fails."""


class Lack(Value, kw_only=True):
    """Something that the fleet sees and no sample of the pool shows."""

    input: str
    channel: int
    extreme: str
    """`low` or `high`: the least or the largest value of a sample in that channel."""
    at_least: float | None
    """Where it lies; None where the bin is open on that side."""
    below: float | None
    share: float
    """Of the inferences that devices looked at, as far as it can be told through their noise."""


class CalibrationRequest(Value, kw_only=True):
    """What `edgewise data select --from-fleet` chose, why, and what the pool lacks; `calibrate` takes it as a split."""

    format_version: int = CURATION_VERSION
    product: str
    release: str
    start_ms: int
    stop_ms: int
    reports: int
    noise_scale: float
    """Mean over the reports; 0 where devices added none."""
    seen: int
    """Ranges of extremes (channel, low or high, half an octave) that the fleet shows beyond its noise."""
    covered: float
    """Share of what devices saw, by count, that some chosen sample shows too."""
    low_margins: float | None
    """Share of inferences whose top-1 was less than 0.1 above top-2; None where no margin was told."""
    pools: dict[str, int]
    samples: tuple[Picked, ...]
    """Best first."""
    lacking: tuple[Lack, ...]
    """Most frequent first: collect samples that show these."""
    written: str
    """The split, relative to the request."""
    sha256: str
    """Of the split."""
