"""The end of a verification on the terminal: the verdict, each limit, and what is not a pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgewise.cli.console import clean
from edgewise.cli.table import limits_table
from edgewise.contracts.budget import Verdict
from edgewise.contracts.verification import Finding, Grade, Verification

_STYLES = {
    Grade.PASS: "green",
    Grade.FLAG: "yellow",
    Grade.FAIL: "bold red",
    Grade.UNKNOWN: "yellow",
    Grade.UNAVAILABLE: "dim",
    Grade.NOTED: "dim",
}
_SHOWN = (Grade.FAIL, Grade.UNKNOWN, Grade.FLAG)
_SAID = {
    Verdict.PASS: ("passes", "bold green"),
    Verdict.FAIL: ("fails", "bold red"),
    Verdict.UNKNOWN: ("passes as far as is known", "bold yellow"),
}
_MOST_ROWS = 24


def print_verification(found: Verification, console: Console, *, places: Sequence[tuple[str, Path]]) -> None:
    """Print everything a person wants to know first; `places` are the files that were written."""
    word, style = _SAID[found.verdict]
    if found.verdict is Verdict.UNKNOWN and any(not each.finished for each in found.sections):
        word, style = "is not verified", "bold red"
    console.print()
    console.print(
        Text.assemble(
            (clean(Path(found.variant).name), "bold"),
            " ",
            (word, style),
            f": {found.suite} verification beside {clean(Path(found.reference).name)}, {found.samples} test samples, "
            f"seed {found.seed}",
        )
    )
    if found.limits:
        console.print(limits_table([(each, "") for each in found.limits]))
    findings = [each for section in found.sections for each in section.findings]
    shown = sorted((each for each in findings if each.grade in _SHOWN), key=lambda each: _SHOWN.index(each.grade))
    if shown:
        console.print(_table(shown[:_MOST_ROWS]))
    if len(shown) > _MOST_ROWS:
        console.print(Text(f"{len(shown) - _MOST_ROWS} more are in the document.", style="dim"))
    console.print(Text(_counted(findings), style="dim"))
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), clean(warning)))
    for label, path in places:
        console.print(Text.assemble((f"{label:<9} ", "bold"), clean(str(path))), soft_wrap=True)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("finding", "grade", "what was found"):
        table.add_column(head, overflow="fold", no_wrap=head != "what was found")
    for each in findings:
        name = f"{each.name}\n  {each.subject}" if each.subject else each.name
        said = clean(each.detail) + (f"\ntry: {clean(each.advice)}" if each.advice else "")
        table.add_row(Text(clean(name)), Text(each.grade.value, style=_STYLES[each.grade]), Text(said))
    return table


def _counted(findings: Sequence[Finding]) -> str:
    counts = {grade: sum(each.grade is grade for each in findings) for grade in Grade}
    return ", ".join(f"{count} {grade.value}" for grade, count in counts.items() if count)
