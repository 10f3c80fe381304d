"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document to stdout, also for an error; all else goes to stderr."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Judge candidates on a Ray cluster: its address, or `local`. Needs edgewise\\[cluster]."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Measure everything anew instead of going on with an earlier run.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="RUN", help="Folder for the results.")]

_BUDGET = "Budget (each limit is optional, and overrides that of the config)"


def _limit(metavar: str, words: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar=metavar, help=words, rich_help_panel=_BUDGET)
    return option


# Text and not numbers: `contracts.rules` judges them, and has advice for a value like "5 ms".
LatencyP50 = Annotated[str | None, _limit("MS", "Median time of one inference, in milliseconds.")]
LatencyP99 = Annotated[str | None, _limit("MS", "99th percentile of the time of one inference, in milliseconds.")]
PeakMemory = Annotated[str | None, _limit("MIB", "Peak memory of a fresh process that runs the model, in MiB.")]
Size = Annotated[str | None, _limit("MIB", "Size of the model's file, in MiB.")]
Energy = Annotated[str | None, _limit("MJ", "Energy of one inference, in millijoules.")]
AccuracyDrop = Annotated[
    str | None, _limit("POINTS", "Loss of the task's metric against fp32: 0.01 is one point in a hundred.")
]
FlipRate = Annotated[str | None, _limit("SHARE", "Share of inputs whose top answer differs from fp32, from 0 to 1.")]
