"""`edgewise optimize`: from a trained model to a variant that fits its budget, and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.job import carry_out
from edgewise.cli.project import Arguments, project_of, stem
from edgewise.contracts.project import Effort
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskKind

EPILOG = """\
[bold]Examples[/]

edgewise optimize edgewise.toml

edgewise optimize edgewise.toml --effort thorough --latency-p99-ms 5

edgewise optimize model.onnx --data data/ --flip-rate 0.02 --size-mib 4

edgewise optimize edgewise.toml --on http://127.0.0.1:8750

edgewise optimize my_package.net:build --data data/ --threads 2 --json > run.json

[bold]Exit codes[/]

0 a variant fits; 3 nothing fits the budget; 2 something given cannot be used; 1 the work failed;
130 stopped with Ctrl-C: the same command goes on from there.
"""


def optimize(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG.toml|MODEL",
            help="A config; or a model: an ONNX file, or package.module:function that returns a torch module. "
            "Without one, edgewise.toml of this folder.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="With a MODEL: the folder with calibrate.npz and, to prove it, test.npz."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The class of device: `local` (this machine, the default), a profile that "
            "`edgewise targets list` shows, or a .toml file.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"What the model does: {', '.join(TaskKind)}, or your own file.py:Class. "
            "Without it, inferred from the outputs.",
            autocompletion=lambda: [each.value for each in TaskKind],
        ),
    ] = None,
    output: options.Output = None,
    effort: Annotated[
        Effort | None, typer.Option(help="How long the search may look: seconds, a minute, many minutes.")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads of one inference on the target.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of every random choice: same seed, same bytes.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that build and judge candidates; default: the cores.")
    ] = None,
    runtime: Annotated[
        list[RuntimeName] | None,
        typer.Option(
            help="Runtime to execute with; may be repeated: fp32 on the first is the reference, any may be chosen."
        ),
    ] = None,
    cluster: options.Cluster = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure on a device through its agent's [lab]; its token is taken from EDGEWISE_LAB_TOKEN.",
        ),
    ] = None,
    latency_p50_ms: options.LatencyP50 = None,
    latency_p99_ms: options.LatencyP99 = None,
    peak_memory_mib: options.PeakMemory = None,
    size_mib: options.Size = None,
    energy_mj: options.Energy = None,
    accuracy_drop: options.AccuracyDrop = None,
    flip_rate: options.FlipRate = None,
    json: options.Json = False,
    fresh: options.Fresh = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Quantize a model so that it fits a budget on a target, and measure that it does.

    Writes the chosen variant, evidence.json and report.html to the output folder (default:
    runs/ and the model's name). The variant is never slower than fp32. An interrupted run goes on
    where it stopped.
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
        subject=subject,
        data=data,
        target=target,
        task=task,
        effort=effort,
        threads=threads,
        seed=seed,
        workers=workers,
        runtimes=tuple(runtime or ()),
        limits={name: value for name, value in limits.items() if value is not None},
    )
    project, base = project_of(arguments, cwd=Path.cwd())
    folder = output if output is not None else Path("runs") / stem(project.model.path)
    return carry_out(project, base=base, output=folder, json=json, cluster=cluster, fresh=fresh, on=on)
