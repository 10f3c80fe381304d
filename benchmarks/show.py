"""The tables of a benchmark: one per task, with the verdict under it."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from runs import Run
from score import DECIDES, Figure, kind
from verdict import Claim, fastest, most_accurate


def cells(run: Run, figure: Figure, best: list[Run | None]) -> list[str]:
    """Write one tool's cells; the best peer of a column in bold."""
    name = f"[cyan]{run.name}[/]" if run.ours else run.name
    costs = [
        "" if value is None else form.format(value)
        for form, value in (("{:.2f}", run.size_mib), ("{:.1f}", run.wall_seconds), ("{:.0f}", run.peak_tree_mib))
    ]
    if not run.ran:
        return [name, "", "[red]failed[/]", "", *costs]
    quality = figure.form.format(run.quality[figure.key])
    quality += f" ({run.quality['flips']})" if "flips" in run.quality else ""
    speed = run.speed["fp32"]
    spread = (speed["interval"][1] - speed["interval"][0]) / 2
    texts = [quality, f"{speed['median']:.2f} ±{spread:.2f}"]
    bold = [f"[bold]{text}[/]" if run is peer else text for text, peer in zip(texts, best, strict=True)]
    return [name, f"{run.quality['score']:.4f}", *bold, *costs]


def table(task: str, reference: dict[str, Any], rows: list[Run]) -> Table:
    """Lay out one task: fp32, the peers, ours."""
    figure = DECIDES[kind(task)]
    peers = [run for run in rows if run.ran and not run.ours]
    latency = reference.get("latency_p50_ms")
    pace = "not timed" if latency is None else f"{latency:.3f} ms"
    title = f"{task} (fp32 {pace}, {reference['n']} test samples)"
    grid = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for name in ("tool", reference["metric"], figure.title, "speed", "MiB", "wall s", "peak"):
        grid.add_column(name, justify="left" if name == "tool" else "right", no_wrap=True)
    grid.add_row("fp32", f"{reference['score']:.4f}", "", "1", f"{reference['size_mib']:.2f}", "", "")
    grid.add_section()
    best = [most_accurate(peers, figure), fastest(peers)]
    for run in sorted(rows, key=lambda run: run.ours):
        grid.add_row(*cells(run, figure, best))
    return grid


def verdict_table(claims: list[Claim]) -> Table:
    """Lay out ours against the best peer of each column."""
    grid = Table(box=None, padding=(0, 1))
    for name in ("", "ours", "", "found", "required"):
        grid.add_column(name, overflow="fold")
    mark = {True: "[green]yes[/]", False: "[red]NO[/]", None: "[yellow]?[/]"}
    for claim in claims:
        grid.add_row(mark[claim.holds], claim.of, claim.about, escape(claim.found), escape(claim.required))
    return grid


def show(console: Console, task: str, reference: dict[str, Any], rows: list[Run], claims: list[Claim]) -> None:
    """Print one task."""
    console.print(table(task, reference, rows))
    for run in rows:
        if remark := run.failure or run.note:
            console.print(Padding(f"[bold]{run.name}[/]: {escape(remark)}", (0, 2)), style="dim")
    if claims:
        console.print(verdict_table(claims))
    console.print()
