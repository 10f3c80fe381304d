"""The command line: one thin file per verb. What is heavy is imported when a verb runs."""

from __future__ import annotations

import sys

from edgewise.errors import MissingExtraError

# What the command line itself is made of; an install for a device leaves it out.
_NEEDED = frozenset({"typer", "rich"})


def start() -> None:
    """Run the command line and exit; an install without it is told which extra is missing.

    `edgewise agent` needs no extra, and loads nothing that only other verbs need.
    """
    if sys.argv[1:2] == ["agent"]:
        from edgewise.cli import agent  # noqa: PLC0415 - the other verbs do without it

        agent.main()
    try:
        from edgewise.cli.main import main  # noqa: PLC0415 - needs what is being asked for
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        missing = MissingExtraError(
            f"the command line needs the library {error.name!r}, which is not installed",
            required="edgewise[forge]",
            next_step="pip install 'edgewise[forge]'",
        )
        sys.stderr.write(f"{missing}\n")
        sys.exit(missing.exit_code)
    main()
