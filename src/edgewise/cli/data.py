"""`edgewise data`: choose calibration samples, and see whether the data can be trusted."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
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
    from edgewise.contracts.curation import CalibrationRequest, DataCheck, Lack, Selection

EPILOG = """\
[bold]Examples[/]

edgewise data select recordings.npz --model model.onnx --samples 256 --output data/calibrate.npz

edgewise data select recordings.npz --model model.onnx --output data/calibrate.npz \\
    --from-fleet https://fleet.example/api/v1/captures/kws/DIGEST

edgewise data check data/ --model model.onnx

[bold]Exit codes of check[/]

0 nothing fails; 1 something fails; 2 something given cannot be used.
"""

HOLDS, FAILS = 0, 1
MOST_CAPTURE_BYTES = 16 * 1024 * 1024
MOST_SHOWN = 8
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
    from_fleet: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Choose what shows what the fleet sees: the server's captures of a release, or a file of them.",
        ),
    ] = None,
    task: Task = None,
    seed: Seed = 0,
    threads: Threads = 1,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Choose calibration samples that drive every channel of the model as far as the whole pool does.

    Runs fp32 over at most 2,048 samples of the pools. The default is a greedy set cover over the outlier channels of
    the activations; k-centre and random are there to compare, and the table shows all three.

    With --from-fleet the devices' own sketches say what is to be covered: a request (.json) is written beside the
    split, which `calibrate` of edgewise.toml takes, and what no sample of the pools shows is named. The token of an
    operator or viewer is taken from EDGEWISE_TOKEN.
    """
    config = TaskConfig(kind=task, calibrate=str(pools[0]), samples=samples)
    if from_fleet is not None:
        if method is not Method.COVER:
            raise ConfigError(
                f"--method {method} with --from-fleet",
                required="the method cover: what the fleet sees is what is covered",
                next_step="leave one of the two out",
            )
        return _select_from_fleet(
            from_fleet, pools, model=model, config=config, seed=seed, output=output, threads=threads, json=json
        )
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


@data.command("unseal")
def unseal_samples(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Samples that devices sealed, copied from them.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private X25519 key, as PEM.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.npz", help="The pool to write.")],
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Open samples that devices kept with consent, and join them to a pool to select from.

    The passphrase of the key, if it has one, is taken from EDGEWISE_PASSPHRASE.
    """
    from edgewise.forge.data.unseal import unseal_folder  # noqa: PLC0415
    from edgewise.keys.sealed import load_unsealing  # noqa: PLC0415

    if output.suffix != ".npz":
        raise ConfigError(f"--output {output}", required="a file that ends in .npz", next_step="name it so")
    passphrase = os.environ.get("EDGEWISE_PASSPHRASE", "").encode() or None
    found = unseal_folder(folder, load_unsealing(key, passphrase=passphrase), output)
    if json:
        print_document({"samples": found, "written": str(output)})
    else:
        stdout_console().print(f"[bold]written[/] {clean(str(output))}: {found} samples", soft_wrap=True)
    return HOLDS


def _select_from_fleet(
    source: str,
    pools: list[Path],
    *,
    model: str,
    config: TaskConfig,
    seed: int,
    output: Path,
    threads: int,
    json: bool,
) -> int:
    with stdout_kept():
        from edgewise.cli.progress import drawn  # noqa: PLC0415
        from edgewise.forge.curate.fleet_ import decode_capture, request_calibration  # noqa: PLC0415

        capture = decode_capture(_fetched(source))
        with drawn(stderr_console(), quiet=json) as progress, TemporaryDirectory(prefix="edgewise-select-") as work:
            found = request_calibration(
                capture,
                pools,
                model=model,
                config=config,
                base=Path.cwd(),
                work=Path(work),
                seed=seed,
                output=output,
                request=output.with_suffix(".json"),
                threads=threads,
                progress=progress,
            )
    if json:
        print_document(found)
    else:
        _print_request(found, output.with_suffix(".json"))
    return HOLDS


def _fetched(source: str) -> bytes:
    """Return a file, or the answer of the fleet server at an address. Raises InputError, TransferError."""
    if "://" not in source:
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{source}: {error.strerror}", required="a file, or an address", next_step="check --from-fleet"
            ) from error
    from edgewise.device.trust.pace import Pace  # noqa: PLC0415
    from edgewise.device.trust.transport import Transport  # noqa: PLC0415

    token = os.environ.get("EDGEWISE_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = bytearray()
    with Transport(Pace(total_s=300), headers=headers).get(source) as reply:
        reply.check_status()
        for chunk in reply.chunks():
            data += chunk
            if len(data) > MOST_CAPTURE_BYTES:
                raise ConfigError(f"{source}: more than {MOST_CAPTURE_BYTES} bytes", required="a fleet's captures")
    return bytes(data)


def _print_request(found: CalibrationRequest, request: Path) -> None:
    console = stdout_console()
    console.print(
        f"[bold]{len(found.samples)}[/] of {sum(found.pools.values())} samples for {clean(found.product)}: they show "
        f"{found.covered:.1%} of what devices saw ({found.seen} ranges, {found.reports} reports)",
        soft_wrap=True,
    )
    if found.low_margins is not None:
        console.print(f"{found.low_margins:.1%} of the inferences had a margin below 0.1", soft_wrap=True)
    for each in found.lacking[:MOST_SHOWN]:
        console.print(
            f"[yellow]no sample shows[/] {clean(each.input)}, channel {each.channel}: a {each.extreme}est value "
            f"{_where(each)} ({each.share:.2%} of the inferences)",
            soft_wrap=True,
        )
    if len(found.lacking) > MOST_SHOWN:
        console.print(f"and {len(found.lacking) - MOST_SHOWN} more, see the request", soft_wrap=True)
    console.print(f"[bold]written[/] {clean(found.written)} and {clean(str(request))}", soft_wrap=True)


def _where(lack: Lack) -> str:
    if lack.at_least is None:
        return f"below {lack.below:g}"
    return f"of {lack.at_least:g} or more" if lack.below is None else f"from {lack.at_least:g} to {lack.below:g}"


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
