"""Figures as text, the same on the terminal and in the report. What is not known is said to be so, never 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgewise.contracts.budget import LimitVerdict
from edgewise.contracts.evidence import Candidate, Figures, Status
from edgewise.contracts.recipe import Format, Recipe
from edgewise.contracts.run import Run

MISSING = "unavailable"

LIMITS = {
    "latency_p50_ms": ("latency p50", "ms"),
    "latency_p99_ms": ("latency p99", "ms"),
    "peak_memory_mib": ("peak memory", "MiB"),
    "size_mib": ("size", "MiB"),
    "energy_mj": ("energy", "mJ"),
    "accuracy_drop": ("accuracy drop", ""),
    "flip_rate": ("flips", "%"),
}
"""What each limit of the budget is called, and its unit."""


def number(value: float | None, unit: str = "", *, digits: int = 3) -> str:
    """Return a figure with `digits` significant digits and its unit.

    >>> number(0.0123456, "ms"), number(1234.5, "MiB"), number(0.02, "%"), number(None, "ms")
    ('0.0123 ms', '1,234 MiB', '2.00 %', 'unavailable')
    """
    if value is None:
        return MISSING
    shown = value * 100 if unit == "%" else value
    if abs(shown) >= 10 ** (digits - 1):
        text = f"{shown:,.0f}"
    elif shown == 0:
        text = "0"
    else:
        text = f"{shown:#.{digits}g}"
        if "e" not in text:
            text = text.removesuffix(".")
    return f"{text} {unit}".rstrip()


def limit_name(limit: str) -> str:
    """Return what a limit of the budget is called."""
    return LIMITS.get(limit, (limit, ""))[0]


def limit_value(limit: str, value: float | None) -> str:
    """Return a value of a limit with its unit."""
    return number(value, LIMITS.get(limit, ("", ""))[1])


def margin(verdict: LimitVerdict) -> str:
    """Return how far inside (+) or outside (-) its limit a figure is, in percent of the limit."""
    return "" if verdict.margin is None else f"{verdict.margin:+.0%}"


def score(figures: Figures) -> str:
    """Return the task's metric."""
    return number(figures.score, digits=4)


def speedup(figures: Figures) -> str:
    """Return the speedup over fp32 with its interval."""
    if figures.speedup is None:
        return MISSING
    found = f"{figures.speedup:.2f}x"
    interval = figures.speedup_interval
    return found if interval is None else f"{found} [{interval.low:.2f}, {interval.high:.2f}]"


def energy(figures: Figures) -> str:
    """Return the energy of one inference with its provenance."""
    if figures.energy_mj is None:
        return MISSING
    return f"{number(figures.energy_mj, 'mJ')} ({figures.energy_provenance.value})"


def decibels(value: float | None) -> str:
    """Return a ratio in dB; no noise at all is infinite.

    >>> decibels(31.25), decibels(float("inf"))
    ('31.2 dB', 'exact')
    """
    if value is None:
        return MISSING
    return "exact" if value == float("inf") else f"{value:.1f} dB"


def rows(metric: str, columns: Sequence[Figures]) -> list[tuple[str, list[str]]]:
    """Return the rows of a comparison: a label, and one text per column.

    Rows that only some tasks have (cosine) are left out where no column has them.
    """
    kinds: list[tuple[str, Callable[[Figures], str], bool]] = [
        (f"score ({metric})" if metric else "score", score, True),
        ("flips", lambda each: number(each.flip_rate, "%"), True),
        ("cosine", lambda each: number(each.cosine, digits=5), any(each.cosine is not None for each in columns)),
        ("SQNR", lambda each: decibels(each.sqnr_db), True),
        ("latency p50", lambda each: number(each.latency_p50_ms, "ms"), True),
        ("latency p99", lambda each: number(each.latency_p99_ms, "ms"), True),
        ("speedup", speedup, True),
        ("peak memory", lambda each: number(each.peak_memory_mib, "MiB"), True),
        ("size", lambda each: number(each.size_mib, "MiB"), True),
        ("energy", energy, True),
        ("runtime", lambda each: each.runtime, len({each.runtime for each in columns}) > 1),
    ]
    return [(label, [text(each) for each in columns]) for label, text, shown in kinds if shown]


def runners_up(run: Run, count: int) -> list[Candidate]:
    """Return the fastest measured candidates that were not chosen and are not fp32."""
    chosen = run.chosen.name if run.chosen is not None else None
    rest = [
        each
        for each in run.candidates
        if each.status is Status.MEASURED and each.name != chosen and not is_fp32(each.recipe)
    ]
    return sorted(rest, key=lambda each: -(each.speedup or 0.0))[:count]


def closest(run: Run) -> list[Candidate]:
    """Return the candidates that came nearest to the limits that broke, each once."""
    names = list(dict.fromkeys(run.closest.values()))
    by_name = {each.name: each for each in run.candidates}
    return [by_name[name] for name in names if name in by_name]


def is_fp32(recipe: Recipe) -> bool:
    """Return whether a recipe leaves every region as it is."""
    return all(each.format is Format.FP32 for each in recipe.regions)


def split_note(run: Run) -> str:
    """Say which samples the figures of the table are of."""
    final = f"the {run.data.test} test samples" if run.data.test else "the select split, as no test split was given"
    return f"fp32 and chosen: {final}; runners-up: the {run.data.select} samples of the select split, against fp32."
