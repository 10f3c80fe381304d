"""The command line: one thin file per verb. What is heavy is imported when a verb runs."""

from __future__ import annotations

import sys

from edgewise.errors import EdgewiseError
from edgewise.runtimes.base import require


def start() -> None:
    """Run the command line and exit; an install without it is told which extra is missing."""
    try:
        require("typer", extra="forge")
        require("rich", extra="forge")
    except EdgewiseError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    from edgewise.cli.main import main  # noqa: PLC0415 - needs what was just asked for

    main()
