"""Who may write where: stdout carries the result, stderr everything else."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from edgewise.errors import EdgewiseError

if TYPE_CHECKING:  # rich takes 60 ms to import, which `--help` need not pay twice
    from rich.console import Console

PIPE_WIDTH = 120
"""Characters of a line where stdout is no terminal."""


def clean(text: str) -> str:
    r"""Return text of unknown origin without what a terminal would obey.

    Names of tensors and files may hold escape sequences that recolour, retitle or overwrite.

    >>> clean("a\x1b[31mb\nc")
    'a\\x1b[31mb\nc'
    """
    return "".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in text)


def stdout_console() -> Console:
    """Return the console for results; lines are wide where nobody's terminal limits them."""
    from rich.console import Console  # noqa: PLC0415

    is_wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPE_WIDTH if is_wide else None)


def stderr_console() -> Console:
    """Return the console for progress, notes and errors."""
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Send to stderr what libraries write to stdout meanwhile, also from C and from worker processes."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no stdout at all: a daemon
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_document(value: object) -> None:
    """Write the one JSON document to stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def report_error(error: EdgewiseError, *, json: bool, debug: bool, kind: str | None = None) -> None:
    """Tell what went wrong, in three parts; with `json` also as the one document on stdout."""
    from rich.text import Text  # noqa: PLC0415

    if debug:
        traceback.print_exception(error)
    console = stderr_console()
    parts = (
        ("error", error.found, "bold red"),
        ("required", error.required, "bold"),
        ("next", error.next_step, "bold"),
    )
    for label, text, style in parts:
        if text:
            console.print(Text.assemble((f"{label}: ", style), clean(text)), soft_wrap=True)
    if json:
        print_document(
            {
                "error": {
                    "kind": kind or type(error).__name__,
                    "found": error.found,
                    "required": error.required,
                    "next_step": error.next_step,
                }
            }
        )
