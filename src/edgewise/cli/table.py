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
    columns,
    is_fp32,
    limit_name,
    limit_value,
    margin,
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
        console.print(_limits(run.budget.verdicts))
    if run.chosen is None:
        _print_advice(run, console)
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
    if is_fp32(run.chosen.recipe):
        return Text.assemble(("fp32 stays", "bold yellow"), f": no variant of {model} that holds the budget is faster")
    words = "fits the budget" if run.budget.verdicts else "chosen (no limit was asked for)"
    return Text.assemble((name, "bold green"), f" {words}: {model} on {clean(run.target)}")


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


def _limits(verdicts: Sequence[LimitVerdict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("budget", "at most", "found", "verdict", "margin"):
        table.add_column(name, justify="left" if name in {"budget", "verdict"} else "right")
    for each in verdicts:
        table.add_row(
            limit_name(each.limit),
            limit_value(each.limit, each.required),
            limit_value(each.limit, each.found),
            Text(each.verdict.value, style=_STYLES[each.verdict]),
            margin(each),
        )
    return table


def _print_advice(run: Run, console: Console) -> None:
    broke = [each.limit for each in run.budget.verdicts if each.verdict is Verdict.FAIL]
    if broke:
        console.print(Text(f"broke: {', '.join(limit_name(each) for each in broke)}", style="red"))
    for limit, name in run.closest.items():
        console.print(Text.assemble("closest in ", (limit_name(limit), "bold"), f": {clean(name)}"))
    for line in run.advice:
        console.print(Text.assemble(("try: ", "bold"), clean(line)))
