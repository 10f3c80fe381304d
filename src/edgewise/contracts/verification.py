"""The document of one `edgewise verify`: what `--json` prints and `verification.json` holds.

A section is what one suite found. Its findings are graded; its tables and charts are what the report draws.
"""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value
from edgewise.contracts.budget import LimitVerdict, Verdict
from edgewise.contracts.evidence import Environment, Figures, Interval

VERIFICATION_VERSION = 1

Cell = str | float | int | bool | None
"""What a table may hold. None is shown as missing, never as 0."""


class Depth(StrEnum):
    """How much a verification looks at: `quick` in a minute, `full` in a quarter of an hour."""

    QUICK = "quick"
    FULL = "full"


class Grade(StrEnum):
    """What one finding says about trust in the variant."""

    PASS = "pass"  # noqa: S105 - a grade, not a password
    FLAG = "flag"
    """Worth a person's look; it does not fail the variant."""
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It should be known and could not be found; the detail says why."""
    UNAVAILABLE = "unavailable"
    """This machine, task or install cannot impose or measure it; the detail says why."""
    NOTED = "noted"
    """A figure without a judgement."""


class Finding(Value, kw_only=True):
    """One fact about the variant, beside fp32, with its grade.

    `name` is stable and dotted, `suite.fact` (`where.saturation`, `agreement.subgroups`): gates and tests
    refer to it. `subject` names what it is about where there is more than one (a region, a class, a corruption).
    """

    name: str
    grade: Grade
    detail: str
    """One sentence: what was found."""
    subject: str = ""
    value: float | None = None
    reference: float | None = None
    """The same figure of fp32."""
    limit: float | None = None
    interval: Interval | None = None
    unit: str = ""
    advice: str = ""
    """What to try, where the grade is not a pass."""


class Table(Value, kw_only=True):
    """Rows for the report; every row has as many cells as there are columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


class Line(Value, kw_only=True):
    """One curve of a chart; `low` and `high` are the band around `y`, empty where there is none."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class Chart(Value, kw_only=True):
    """A line chart of the report. Units stand in the labels."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]


class Section(Value, kw_only=True):
    """What one suite found. `seed` is that of its random parts."""

    suite: str
    title: str
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    seconds: float = 0.0
    seed: int | None = None
    finished: bool = True
    """False where the suite broke off: what it would have found is not known, so that the verdict cannot be a pass."""


class ScoreCutoff(Value, kw_only=True):
    """An out-of-distribution score's cut-off: inputs beyond it are refused `1 - keep` of the time on good data."""

    score: str
    cutoff: float
    keep: float = 0.95


class VariantCalibration(Value, kw_only=True):
    """What belongs to one variant and is swapped with it: fitted on its own outputs, never on fp32's."""

    temperature: float | None = None
    """Divides the logits (Guo et al., ICML 2017, section 4.2)."""
    conformal: dict[str, float] = {}
    """Coverage, written as in "0.9", to the threshold of the nonconformity score 1 - p(label)."""
    cutoffs: tuple[ScoreCutoff, ...] = ()


class Change(Value, kw_only=True):
    """One finding of this verification beside the same one of the baseline."""

    name: str
    subject: str
    before: Grade | None
    after: Grade | None
    value_before: float | None = None
    value_after: float | None = None


class Verification(Value, kw_only=True):
    """Everything a verification found, and its verdict."""

    format_version: int = VERIFICATION_VERSION
    verdict: Verdict
    variant: str
    variant_digest: str
    reference: str
    reference_digest: str
    runtime: str
    runtime_version: str
    task: str
    metric: str
    suite: Depth
    seed: int
    samples: int
    data_digest: str
    figures: Figures
    """The variant's; accuracy on the test split."""
    reference_figures: Figures
    limits: tuple[LimitVerdict, ...]
    sections: tuple[Section, ...]
    calibration: VariantCalibration
    baseline: str | None = None
    changes: tuple[Change, ...] = ()
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    environment: Environment
