"""`edgewise data`: choose calibration samples, and see whether the data can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document, stderr_console, stdout_console, stdout_kept
from edgewise.contracts.curation import Method
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Grade
from edgewise.errors import ConfigError
from edgewise.forge.data.folder import resolve_folder

if TYPE_CHECKING:
    from edgewise.contracts.curation import DataCheck, Selection

EPILOG = """\
[bold]Examples[/]

edgewise data select recordings.npz --model model.onnx --samples 256 --output data/calibrate.npz

edgewise data check data/ --model model.onnx

[bold]Exit codes of check[/]

0 nothing fails; 1 something fails; 2 something given cannot be used.
"""

HOLDS, FAILS = 0, 1
_MODEL = "MODEL"
_STYLES = {Grade.PASS: "green", Grade.FLAG: "yellow", Grade.FAIL: "bold red"}

data = typer.Typer(
    help="Choose calibration samples from a pool, or check splits for leakage, wrong labels and drift.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Model = Annotated[str, typer.Option(metavar=_MODEL, help="The fp32 model: what it makes of the samples decides.")]
Task = Annotated[str | None, typer.Option(metavar="KIND", help="What the model does; inferred without it.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of every random choice.")]
Threads = Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Threads of one inference.")]


@data.command()
def select(
    pools: Annotated[
        list[Path], typer.Argument(metavar="POOL...", help="Splits to choose from: npz, tables or folders.")
    ],
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The split to write: an .npz, .csv or .tsv.")
    ],
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="How many to choose.")] = 256,
    method: Annotated[Method, typer.Option(help="How to choose them.")] = Method.COVER,
    task: Task = None,
    seed: Seed = 0,
    threads: Threads = 1,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Choose calibration samples that drive every channel of the model as far as the whole pool does.

    Runs fp32 over at most 2,048 samples of the pools. The default is a greedy set cover over the outlier channels of
    the activations; k-centre and random are there to compare, and the table shows all three.
    """
    config = TaskConfig(kind=task, calibrate=str(pools[0]), samples=samples)
    with stdout_kept():
        from edgewise.cli.progress import drawn  # noqa: PLC0415
        from edgewise.forge.curate import select as selecting  # noqa: PLC0415

        with drawn(stderr_console(), quiet=json) as progress:
            found = selecting.select(
                pools,
                model=model,
                config=config,
                base=Path.cwd(),
                method=method,
                seed=seed,
                output=output,
                threads=threads,
                progress=progress,
            )
    if json:
        print_document(found)
    else:
        _print_selection(found)
    return HOLDS


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with calibrate, select and test.")],
    model: Annotated[
        str | None, typer.Option(metavar=_MODEL, help="The fp32 model; without it, model.onnx of DIR.")
    ] = None,
    task: Task = None,
    seed: Seed = 0,
    threads: Threads = 1,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Find leakage between splits, wrong labels, values that are not numbers, and drift; nothing is written."""
    config = resolve_folder(folder)
    if task is not None:
        config = msgspec.structs.replace(config, kind=task)
    if model is None:
        if not (folder / "model.onnx").is_file():
            raise ConfigError(
                f"{folder} without a model", required="--model MODEL, or model.onnx in it", next_step="name the model"
            )
        model = str((folder / "model.onnx").resolve())
    with stdout_kept():
        from edgewise.cli.progress import drawn  # noqa: PLC0415
        from edgewise.forge.curate import check as checking  # noqa: PLC0415

        with drawn(stderr_console(), quiet=json) as progress:
            found = checking.check(
                str(folder), model=model, config=config, base=Path.cwd(), seed=seed, threads=threads, progress=progress
            )
    if json:
        print_document(found)
    else:
        _print_check(found)
    return HOLDS if found.holds else FAILS


def _print_selection(found: Selection) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = stdout_console()
    console.print(
        f"[bold]{len(found.samples)}[/] of {sum(found.pools.values())} samples by {found.method}: "
        f"{found.coverage:.1%} of {found.outlier_channels} outlier channels by weight, "
        f"{found.range_share:.1%} of the pool's ranges",
        soft_wrap=True,
    )
    table = Table(
        box=box.SIMPLE_HEAD, title="on five random parts of the pool", title_justify="left", title_style="dim"
    )
    for head in ("method", "coverage", "from", "to", "ranges", "spread of ranges"):
        table.add_column(head, justify="left" if head == "method" else "right")
    for each in found.compared:
        shares = (each.coverage, each.coverage_low, each.coverage_high, each.range_share, each.range_spread)
        table.add_row(each.method, *(f"{value:.1%}" for value in shares))
    console.print(table)
    console.print(f"[bold]written[/] {clean(found.written)}", soft_wrap=True)


def _print_check(found: DataCheck) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = stdout_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("finding", "of", "grade", "what"):
        table.add_column(head, overflow="fold")
    for each in found.findings:
        what = Text(clean(each.detail))
        if each.advice:
            what.append(f"\n{clean(each.advice)}", style="dim")
        grade = Text(each.grade, style=_STYLES.get(each.grade, "dim"))
        table.add_row(each.name, Text(clean(each.subject)), grade, what)
    console.print(table)
    failed = sum(each.grade is Grade.FAIL for each in found.findings)
    flagged = sum(each.grade is Grade.FLAG for each in found.findings)
    splits = ", ".join(f"{name} {count}" for name, count in found.splits.items()) or "no split that can be used"
    console.print(f"{failed} failed, {flagged} to look at; task {clean(found.task)}, {splits}")
