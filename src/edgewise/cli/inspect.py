"""`edgewise inspect`: what a model is made of, and what quantizes where."""

from __future__ import annotations

from edgewise.cli import options


def inspect(
    model: str,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Show a model."""
    return 0
