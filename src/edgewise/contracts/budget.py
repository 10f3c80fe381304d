"""The budget: limits a deployment must hold, and the verdict of evidence against them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.evidence import Figures


class Verdict(StrEnum):
    """Whether a limit holds. `unknown` means that its figure could not be measured."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    UNKNOWN = "unknown"


class Budget(Value, kw_only=True):
    """Limits of one deployment on one target. A limit that is None is not asked for.

    Latency in milliseconds of one inference, memory and size in MiB, energy in millijoules per
    inference, `accuracy_drop` in points of the task's metric (0.01 = one point of a 0..1 metric),
    `flip_rate` as the share of inputs whose top answer differs from fp32.
    """

    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    peak_memory_mib: float | None = None
    size_mib: float | None = None
    energy_mj: float | None = None
    accuracy_drop: float | None = None
    flip_rate: float | None = None

    def limits(self) -> dict[str, float]:
        """Return the limits that are asked for, by name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class LimitVerdict(Value, kw_only=True):
    """One limit of the budget against what was measured.

    `margin` is `(limit - found) / limit`: positive inside the limit. It is None where the figure
    is unknown, and where the limit is 0 (no ratio exists).
    """

    limit: str
    required: float
    found: float | None
    verdict: Verdict
    margin: float | None


def judge(budget: Budget, figures: Figures, reference: Figures) -> tuple[LimitVerdict, ...]:
    """Return one verdict per limit that the budget asks for.

    `reference` is the fp32 model on the same target: `accuracy_drop` is measured against it.
    """
    return tuple(_judge_limit(name, limit, _found(name, figures, reference)) for name, limit in budget.limits().items())


def holds(verdicts: tuple[LimitVerdict, ...]) -> bool:
    """Return whether no limit failed and none is unknown."""
    return all(each.verdict is Verdict.PASS for each in verdicts)


def _found(name: str, figures: Figures, reference: Figures) -> float | None:
    if name != "accuracy_drop":
        value: float | None = getattr(figures, name)
        return value
    if figures.score is None or reference.score is None:
        return None
    drop = reference.score - figures.score
    return drop if figures.higher_is_better else -drop


def _judge_limit(name: str, limit: float, found: float | None) -> LimitVerdict:
    if found is None:
        return LimitVerdict(limit=name, required=limit, found=None, verdict=Verdict.UNKNOWN, margin=None)
    verdict = Verdict.PASS if found <= limit else Verdict.FAIL
    margin = (limit - found) / limit if limit else None
    return LimitVerdict(limit=name, required=limit, found=found, verdict=verdict, margin=margin)
