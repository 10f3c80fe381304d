"""The document of one `edgewise optimize` run: what `--json` prints and `evidence.json` holds."""

from __future__ import annotations

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget, LimitVerdict
from edgewise.contracts.evidence import (
    Candidate,
    Environment,
    Figures,
    FlipEvidence,
    HistogramEvidence,
    RegionEvidence,
)
from edgewise.contracts.recipe import Recipe

FORMAT_VERSION = 1


class Chosen(Figures, kw_only=True):
    """The chosen variant; its accuracy figures are of the *test* split, opened once."""

    name: str
    recipe: Recipe


class BudgetEvidence(Value, kw_only=True):
    """The limits, a verdict each, and whether the user gave any."""

    limits: Budget
    verdicts: tuple[LimitVerdict, ...]
    fits: bool


class Data(Value, kw_only=True):
    """The splits of a run: how many samples each has, and its SHA-256."""

    calibrate: int
    select: int
    test: int
    digest: str
    selection: str
    """How the calibration samples were chosen from the pool."""


class RuntimeAgreement(Value, kw_only=True):
    """The chosen variant executed by a runtime that is not its own, against its own on the test split."""

    runtime: str
    version: str
    sqnr_db: float | None
    flip_rate: float | None
    speedup: float | None
    """Time of fp32 on the first runtime / time of the variant on this one."""
    reason: str = ""


class Run(Value, kw_only=True):
    """Everything a run found. `chosen` is None where nothing fits; `closest` then has the nearest."""

    format_version: int = FORMAT_VERSION
    model: str
    model_digest: str
    task: str
    metric: str
    target: str
    effort: str
    seconds: dict[str, float]
    """Wall time of each phase."""
    data: Data
    reference: Figures
    chosen: Chosen | None
    closest: dict[str, str] = {}
    """Per limit that broke: the name of the candidate that came nearest."""
    advice: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...]
    budget: BudgetEvidence
    regions: tuple[RegionEvidence, ...] = ()
    histograms: tuple[HistogramEvidence, ...] = ()
    flips: tuple[FlipEvidence, ...] = ()
    agreement: tuple[RuntimeAgreement, ...] = ()
    notes: tuple[str, ...] = ()
    """What import changed in the model."""
    warnings: tuple[str, ...] = ()
    environment: Environment
