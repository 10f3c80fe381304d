"""`edgewise demo`: the whole loop on a small model that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgewise.cli import options
from edgewise.cli.console import clean, stderr_console, stdout_console, stdout_kept
from edgewise.cli.job import carry_out
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo import demo_folder

if TYPE_CHECKING:
    from edgewise.demo.loop.story import Story

EPILOG = """\
[bold]Examples[/]

edgewise demo

edgewise demo --devices 0 --output /tmp/demo --effort fast --json
"""
FITS, NOT_AS_TOLD = 0, 1
PAGE, DOCUMENT = "fleet.html", "story.json"

BUDGET = Budget(latency_p50_ms=5.0, size_mib=0.4, accuracy_drop=0.01, flip_rate=0.03)
"""What a small device might afford: fp32 is too large for it."""


def demo(
    output: options.Output = Path("runs/demo"),
    effort: Annotated[Effort, typer.Option(help="How long the search may look.")] = Effort.DEFAULT,
    devices: Annotated[
        int, typer.Option(metavar="N", min=0, max=200, help="Agents in the fleet; 0 leaves server and rollouts out.")
    ] = 20,
    json: options.Json = False,
    fresh: options.Fresh = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Quantize the small vision model that comes with edgewise, verify it, and roll it out over a fleet of processes.

    A server and its devices run on this machine: a good release completes, and one that was made slow on purpose is
    stopped by its canaries. Nothing is downloaded. The model is of the kind that breaks under naive int8: depthwise
    convolutions, hard-swish, squeeze-and-excite, trained on Fashion-MNIST.
    """
    project = Project(
        model=ModelConfig(path="model.onnx"),
        task=TaskConfig(kind=TaskKind.CLASSIFICATION, calibrate="calibrate.npz", test="test.npz"),
        budget=BUDGET,
        search=SearchConfig(effort=effort),
    )
    output = output or Path("runs/demo")
    if devices:
        from edgewise.runtimes.base import require  # noqa: PLC0415 - loads a runtime

        for library in ("litestar", "granian", "sqlalchemy", "obstore", "httpx"):
            require(library, extra="fleet")
    code = carry_out(project, base=demo_folder(), output=output, json=json, fresh=fresh, proof=True)
    if code != FITS or not devices:
        return code
    return _rolled_out(output, devices=devices, json=json)


def _rolled_out(output: Path, *, devices: int, json: bool) -> int:
    """Take what was found to a fleet, and tell how it went; stdout keeps the run's document under --json."""
    with stdout_kept():
        import msgspec  # noqa: PLC0415 - as what follows, after what can be refused early

        from edgewise.cli.progress import drawn  # noqa: PLC0415
        from edgewise.demo.loop.page import write_page  # noqa: PLC0415
        from edgewise.demo.loop.story import FOLDER, tell  # noqa: PLC0415

        with drawn(stderr_console(), quiet=json) as progress:
            story = tell(output, devices=devices, progress=progress)
        write_page(story, output / FOLDER / PAGE)
        (output / FOLDER / DOCUMENT).write_bytes(msgspec.json.encode(story))
    if not json:
        _print(story, output / FOLDER / PAGE)
    return FITS if story.as_told else NOT_AS_TOLD


def _print(story: Story, page: Path) -> None:
    console = stdout_console()
    console.print(
        f"\n[bold]A fleet of {story.devices} devices[/], each a process of its own, in {story.seconds:.0f} s\n"
    )
    for each in story.moments:
        console.print(f"[dim]{each.at_s:4.0f} s[/]  {escape(clean(each.words))}", soft_wrap=True)
    answers = ", ".join(f"{count} {kind}" for kind, count in sorted(story.answers.items()))
    console.print(f"\n{'as planned' if story.as_told else '[red]not as planned[/]'}; applications got: {answers}")
    console.print(f"\nstory     {page}\nconsole   {escape(story.reopen)}", soft_wrap=True)
