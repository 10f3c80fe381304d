"""`edgewise targets`: the classes of device that edgewise knows, and what this machine can do."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options

targets = typer.Typer(
    help="List the classes of device that edgewise knows, or measure this machine.", no_args_is_help=True
)


@targets.command(name="list")
def list_(
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """List the target profiles by name; nothing is measured."""
    return 0
