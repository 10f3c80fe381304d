"""`edgewise demo`: the main job on a small model that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.job import carry_out
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo import demo_folder

EPILOG = """\
[bold]Examples[/]

edgewise demo

edgewise demo --output /tmp/demo --effort fast --json
"""

BUDGET = Budget(latency_p50_ms=2.0, size_mib=0.4, accuracy_drop=0.01, flip_rate=0.03)
"""What a small device might afford: fp32 is too large for it."""


def demo(
    output: options.Output = Path("runs/demo"),
    effort: Annotated[Effort, typer.Option(help="How long the search may look.")] = Effort.DEFAULT,
    json: options.Json = False,
    fresh: options.Fresh = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Quantize the small vision model that comes with edgewise, verify the result, and show what both look like.

    Nothing is downloaded. The model is of the kind that breaks under naive int8: depthwise
    convolutions, hard-swish, squeeze-and-excite, trained on Fashion-MNIST.
    """
    project = Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(kind=TaskKind.CLASSIFICATION, calibrate="calibrate.npz", test="test.npz"),
        budget=BUDGET,
        search=SearchConfig(effort=effort),
    )
    return carry_out(
        project, base=demo_folder(), output=output or Path("runs/demo"), json=json, fresh=fresh, proof=True
    )
