"""Figures as text, the same on the terminal and in the report. What is not known is said to be so, never 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgewise.contracts.budget import LimitVerdict, judge
from edgewise.contracts.evidence import Candidate, Figures, Status, name_on
from edgewise.contracts.recipe import Format
from edgewise.contracts.run import Chosen, Run

MISSING = "unavailable"
REFERENCE = "fp32"
"""The name of the user's own model among the candidates."""

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


def sqnr(figures: Figures) -> str:
    """Return the signal to noise ratio at the output; outputs that are equal have no noise."""
    return "exact" if figures.sqnr_db is None and figures.divergence == 0 else decibels(figures.sqnr_db)


class Column(NamedTuple):
    """One column of the comparison: what it is, its name, its figures, and fp32's on the same samples."""

    word: str
    name: str
    figures: Figures
    fp32: Figures | None


def columns(run: Run, most: int) -> list[Column]:
    """Return fp32, the chosen variant and at most `most` others; where nothing fits, the closest ones."""
    found = [Column("", "fp32", run.reference, run.reference)]
    if run.chosen is not None:
        found.append(Column("chosen", run.chosen.name, run.chosen, run.reference))
    near = closest(run) if run.chosen is None else []
    fp32 = on_select(run)
    word = "closest" if near else "runner-up"
    others = (near or runners_up(run, most))[:most]
    return found + [Column(word, each.name, each, fp32) for each in others]


def rows(metric: str, shown: Sequence[Column]) -> list[tuple[str, list[str]]]:
    """Return the rows of a comparison: a label, and one text per column.

    Rows that only some tasks have (cosine) are left out where no column has them.
    """
    figures = [each.figures for each in shown]
    kinds: list[tuple[str, Callable[[Figures], str], bool]] = [
        ("flips", lambda each: number(each.flip_rate, "%"), True),
        ("cosine", lambda each: number(each.cosine, digits=5), any(each.cosine is not None for each in figures)),
        ("SQNR", sqnr, True),
        ("latency p50", lambda each: number(each.latency_p50_ms, "ms"), True),
        ("latency p99", lambda each: number(each.latency_p99_ms, "ms"), True),
        ("speedup", speedup, True),
        ("peak memory", lambda each: number(each.peak_memory_mib, "MiB"), True),
        ("size", lambda each: number(each.size_mib, "MiB"), True),
        ("energy", energy, True),
        ("runtime", lambda each: each.runtime, len({each.runtime for each in figures}) > 1),
    ]
    found = [(f"score ({metric})" if metric else "score", [score(each) for each in figures])]
    if any(each.score is not None for each in figures):
        found.append(("against fp32", [difference(each) for each in shown]))
    return found + [(label, [text(each) for each in figures]) for label, text, wanted in kinds if wanted]


def difference(column: Column) -> str:
    """Return how far the score is from fp32's on the same samples."""
    mine, fp32 = column.figures.score, column.fp32.score if column.fp32 is not None else None
    return MISSING if mine is None or fp32 is None else f"{mine - fp32:+.4f}"


def runners_up(run: Run, count: int) -> list[Candidate]:
    """Return the fastest measured candidates that were not chosen and are not the user's own model."""
    chosen = run.chosen.name if run.chosen is not None else None
    rest = [each for each in run.candidates if each.status is Status.MEASURED and each.name not in {chosen, REFERENCE}]
    return sorted(rest, key=lambda each: -(each.speedup or 0.0))[:count]


def closest(run: Run) -> list[Candidate]:
    """Return the candidates that came nearest to a limit, each once; fp32 has a column of its own."""
    names = list(dict.fromkeys(run.closest.values()))
    by_name = {each.name: each for each in run.candidates if each.name != REFERENCE}
    return [by_name[name] for name in names if name in by_name]


def nearest(run: Run) -> list[tuple[LimitVerdict, str]]:
    """Return, for each limit, the verdict of the candidate that came nearest to it, and its name.

    Both figures are of the select split: a verdict here is about the search, not the final one.
    """
    by_name = {each.name: each for each in run.candidates}
    fp32 = on_select(run)
    found = []
    for limit, name in run.closest.items():
        if name in by_name and fp32 is not None:
            verdicts = judge(run.budget.limits, by_name[name], fp32)
            found += [(each, name) for each in verdicts if each.limit == limit]
    return found


def on_select(run: Run) -> Candidate | None:
    """Return fp32 with its figures on the select split, which the other candidates were judged on."""
    return next((each for each in run.candidates if each.name == REFERENCE), None)


def is_folded(chosen: Chosen) -> bool:
    """Return whether a variant quantizes no region and is not the user's own model, on whatever runtime."""
    is_own = chosen.name in {REFERENCE, name_on(REFERENCE, chosen.runtime)}
    return not is_own and all(each.format is Format.FP32 for each in chosen.recipe.regions)


def split_note(run: Run) -> str:
    """Say which samples the figures of the table are of."""
    if not run.data.test:
        why = "there is no test split" if run.chosen is not None else "the test split was not opened"
        return f"All figures are of the {run.data.select} samples of the select split: {why}."
    return (
        f"fp32 and chosen: the {run.data.test} test samples. "
        f"Others: the {run.data.select} samples of the select split, against fp32 on the same."
    )
