"""Evidence: everything measured about a variant, each figure with its provenance.

A figure that could not be measured is None, never 0.
"""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Recipe


class EnergyProvenance(StrEnum):
    """Where an energy figure comes from, best first."""

    METERED = "metered"
    COUNTER = "counter"
    MODELLED = "modelled"
    UNAVAILABLE = "unavailable"


class Status(StrEnum):
    """What became of a candidate."""

    MEASURED = "measured"
    """Built, judged and timed end to end."""
    SCREENED = "screened"
    """Built and judged on the select split, not among the shortlist that is timed."""
    FAILED = "failed"
    """Could not be built or run; the reason says why."""


class Interval(Value, kw_only=True):
    """A two-sided bootstrap interval; `level` is its coverage (0.95)."""

    low: float
    high: float
    level: float = 0.95


class Figures(Value, kw_only=True):
    """The figures of one variant on one target.

    `score` is the task's metric, `flip_rate` and `sqnr_db` are against fp32 on the same samples,
    `speedup` is fp32 time / variant time from interleaved rounds of one process. Which split a
    figure was taken on is said by the document that holds it.
    """

    path: str | None
    runtime: str
    score: float | None = None
    higher_is_better: bool = True
    metrics: dict[str, float] = {}
    flip_rate: float | None = None
    sqnr_db: float | None = None
    cosine: float | None = None
    divergence: float | None = None
    """The task's own distance to fp32 per sample (lower is closer), what the search minimises."""
    speedup: float | None = None
    speedup_interval: Interval | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_max_ms: float | None = None
    peak_memory_mib: float | None = None
    size_mib: float | None = None
    energy_mj: float | None = None
    energy_provenance: EnergyProvenance = EnergyProvenance.UNAVAILABLE


class Candidate(Figures, kw_only=True):
    """One thing the search tried. Its accuracy figures are of the *select* split."""

    name: str
    recipe: Recipe
    status: Status
    reason: str = ""


def name_on(name: str, runtime: str) -> str:
    """Return what a candidate is called on a runtime that is not the first of those named.

    >>> name_on("placed 2 gptq", "openvino")
    'placed 2 gptq on openvino'
    """
    return f"{name} on {runtime}"


class RegionEvidence(Value, kw_only=True):
    """What is known about one region of the chosen variant.

    `sqnr_db` is at the model's output with only this region quantized; times are per inference, in
    microseconds, from the runtime's own profile; `int8_kernel` is the kernel that ran it.
    """

    region: str
    kind: str
    format: str
    cause: str = ""
    """The likely reason for its loss: range, outlier channel, saturation, rounding."""
    sqnr_db: float | None = None
    divergence: float | None = None
    time_fp32_us: float | None = None
    time_variant_us: float | None = None
    kernel: str | None = None
    runs_quantized: bool | None = None


class HistogramEvidence(Value, kw_only=True):
    """A calibration histogram kept for the report: counts over equal bins from `low` to `high`."""

    tensor: str
    low: float
    high: float
    counts: tuple[int, ...]
    range_low: float
    range_high: float


class FlipEvidence(Value, kw_only=True):
    """One test sample whose top answer changed; `margin` is fp32's top-1 minus top-2 probability."""

    index: int
    reference_answer: str
    variant_answer: str
    target: str | None
    margin: float | None


class Environment(Value, kw_only=True):
    """The machine and the software a run was measured with."""

    machine: str
    processor: str
    cores: int
    threads: int
    memory_mib: float
    system: str
    python: str
    versions: dict[str, str]
    load_average: float | None
    seed: int
