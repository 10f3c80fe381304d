"""The end of a run on the terminal: fp32, chosen and runners-up; each limit; what to do where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgewise.cli.console import clean
from edgewise.contracts.budget import LimitVerdict, Verdict
from edgewise.contracts.evidence import Status
from edgewise.contracts.run import Run
from edgewise.forge.report.figures import (
    REFERENCE,
    columns,
    is_folded,
    limit_name,
    limit_value,
    margin,
    nearest,
    rows,
    split_note,
)

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "yellow"}
_MOST_OTHERS = 3
_LABEL_WIDTH, _COLUMN_WIDTH = 18, 22


def print_run(run: Run, console: Console, *, places: Sequence[tuple[str, Path]]) -> None:
    """Print everything a person wants to know first; `places` are the files that were written."""
    console.print()
    console.print(_headline(run))
    console.print(_comparison(run, console.width))
    console.print(Text(split_note(run), style="dim"))
    if run.budget.verdicts:
        console.print(limits_table([(each, "") for each in run.budget.verdicts]))
    if run.chosen is None:
        if run.closest:
            console.print(limits_table(nearest(run)))
        for line in run.advice:
            console.print(Text.assemble(("try: ", "bold"), clean(line)))
    for warning in run.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), clean(warning)))
    failed = sum(each.status is Status.FAILED for each in run.candidates)
    if failed:
        console.print(Text(f"{failed} candidates failed; the report gives each reason.", style="yellow"))
    for label, path in places:
        console.print(Text.assemble((f"{label:<9} ", "bold"), clean(str(path))), soft_wrap=True)


def _headline(run: Run) -> Text:
    model = clean(run.model)
    if run.chosen is None:
        return Text.assemble(("Nothing fits the budget", "bold red"), f": {model} on {clean(run.target)}")
    name = clean(run.chosen.name)
    if run.chosen.name == REFERENCE:
        return Text.assemble(("fp32 stays", "bold yellow"), f": no variant of {model} that holds the budget is faster")
    kind = " (folded and fused, nothing is quantized)" if is_folded(run.chosen) else ""
    words = "fits the budget" if run.budget.verdicts else "chosen (no limit was asked for)"
    return Text.assemble((name, "bold green"), f" {words}{kind}: {model} on {clean(run.target)}")


def _comparison(run: Run, width: int) -> Table:
    count = max(0, min(_MOST_OTHERS, (width - _LABEL_WIDTH) // _COLUMN_WIDTH - 2))
    shown = columns(run, count)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for each in shown:
        style = "bold green" if each.word == "chosen" else ""
        head = Text.assemble((f"{each.word}\n" if each.word else "", "dim"), (clean(each.name), style))
        table.add_column(head, justify="right", overflow="fold")
    for label, cells in rows(run.metric, shown):
        table.add_row(Text(clean(label)), *(Text(clean(each)) for each in cells))
    return table


def limits_table(verdicts: Sequence[tuple[LimitVerdict, str]]) -> Table:
    """Return a row per limit; where nothing fits, with the candidate that came nearest to it."""
    has_names = any(name for _, name in verdicts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("budget", "at most", "closest" if has_names else "found", "verdict", "margin")
    for head in (*heads, *(("by",) if has_names else ())):
        table.add_column(head, justify="left" if head in {"budget", "verdict", "by"} else "right")
    for each, name in verdicts:
        table.add_row(
            limit_name(each.limit),
            limit_value(each.limit, each.required),
            limit_value(each.limit, each.found),
            Text(each.verdict.value, style=_STYLES[each.verdict]),
            margin(each),
            *((Text(clean(name)),) if has_names else ()),
        )
    return table
