"""`edgewise verify`: whether a variant can be trusted, beside the fp32 model it was made from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.project import Arguments
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskKind
from edgewise.contracts.verification import Depth
from edgewise.errors import ConfigError

EPILOG = """\
[bold]Examples[/]

edgewise verify runs/model

edgewise verify runs/model --suite full --groups groups.csv --baseline runs/last-release

edgewise verify model-int8.onnx --reference model.onnx --data data/ --json > verification.json

edgewise verify model-int8.onnx --config edgewise.toml

[bold]Exit codes[/]

0 all pass; 1 something fails; 3 nothing fails, but a figure that the budget limits is unknown,
or a suite broke off; 2 something given cannot be used; 130 stopped with Ctrl-C.
"""


def verify(
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|VARIANT",
            help="The folder of a run of `edgewise optimize`; or a variant, an ONNX file, with --reference and --data.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The fp32 model that the variant was made from: an ONNX file, or a module."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder with test.npz and, for what is fitted, calibrate.npz."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="CONFIG.toml", help="Takes reference, data, task and budget from a config."),
    ] = None,
    suite: Annotated[Depth, typer.Option(help="How much to look at: a minute, or a quarter of an hour.")] = Depth.QUICK,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"What the model does: {', '.join(TaskKind)}, or your own file.py:Class. "
            "Without it, inferred from the outputs.",
            autocompletion=lambda: [each.value for each in TaskKind],
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The subgroup of every test sample: a text with a name per line, or a table with a column `group`.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="An earlier verification or verified run: what changed since is listed."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the results; without it `verification` in the run, or runs/NAME-verification.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads of one inference.")] = None,
    runtime: Annotated[RuntimeName | None, typer.Option(help="The runtime that ships the variant.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of every random choice.")] = None,
    fps: Annotated[float | None, typer.Option(metavar="RATE", help="Rate of the soak, in inferences a second.")] = None,
    minutes: Annotated[float | None, typer.Option(metavar="N", help="Length of the soak, in minutes.")] = None,
    latency_p50_ms: options.LatencyP50 = None,
    latency_p99_ms: options.LatencyP99 = None,
    peak_memory_mib: options.PeakMemory = None,
    size_mib: options.Size = None,
    energy_mj: options.Energy = None,
    accuracy_drop: options.AccuracyDrop = None,
    flip_rate: options.FlipRate = None,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Say whether a variant can be trusted: the verdict per limit of the budget, and findings with their evidence.

    Runs the variant beside the fp32 model on the runtime that ships. Writes verification.json and
    verification.html.
    """
    limits = {
        "latency_p50_ms": latency_p50_ms,
        "latency_p99_ms": latency_p99_ms,
        "peak_memory_mib": peak_memory_mib,
        "size_mib": size_mib,
        "energy_mj": energy_mj,
        "accuracy_drop": accuracy_drop,
        "flip_rate": flip_rate,
    }
    arguments = Arguments(
        subject=str(subject),
        data=data,
        task=task,
        threads=threads,
        seed=seed,
        runtimes=(runtime,) if runtime is not None else (),
        limits={name: value for name, value in limits.items() if value is not None},
    )
    for option, value in (("--fps", fps), ("--minutes", minutes)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{option} {value:g}", required="a number above 0", next_step="write such a value")
    # What follows takes a second to import: bad options were refused before.
    from edgewise.cli.given import default_folder, given_of  # noqa: PLC0415
    from edgewise.cli.proof import prove  # noqa: PLC0415
    from edgewise.forge.verify.baseline import read_baseline  # noqa: PLC0415
    from edgewise.forge.verify.open import Asked  # noqa: PLC0415

    given = given_of(arguments, reference=reference, config=config, cwd=Path.cwd())
    asked = Asked(depth=suite, seed=given.seed, groups=groups, fps=fps, minutes=minutes)
    older = (str(baseline), read_baseline(baseline)) if baseline is not None else None
    folder = output if output is not None else default_folder(subject)
    return prove(given, asked, output=folder, baseline=older, json=json)
