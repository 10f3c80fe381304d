"""`edgewise fleet`: the server, and what is done beside it on the same machine."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import print_document, stdout_console, stdout_kept

EPILOG = """\
[bold]Examples[/]

edgewise fleet init

edgewise fleet serve

edgewise fleet serve --database postgresql://fleet@db/fleet --store s3://bundles/prod --host 0.0.0.0
"""

fleet = typer.Typer(
    help="Run the fleet server: enrolment, releases, rollouts, telemetry.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Database = Annotated[
    str, typer.Option(metavar="URL", envvar="EDGEWISE_DATABASE", help="postgresql://..., or a path for SQLite.")
]
Store = Annotated[
    str, typer.Option(metavar="URL", envvar="EDGEWISE_STORE", help="s3://, gs:// or az://..., or a path to a folder.")
]
DATABASE = "fleet/fleet.db"
STORE = "fleet/store"


@fleet.command()
def init(
    database: Database = DATABASE,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Create the tables and print the first operator's token, once."""
    with stdout_kept():
        administer = _administer()

        made = administer.first_token(database)
    if json:
        print_document({"id": made.id, "token": made.text})
    else:
        stdout_console().print(f"operator's token, shown this once: [bold]{made.text}[/]", soft_wrap=True)
    return 0


@fleet.command()
def migrate(
    database: Database = DATABASE,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Bring the tables up to date; `serve` does so too when it starts."""
    with stdout_kept():
        administer = _administer()

        administer.migrate(database)
    return 0


@fleet.command()
def token(
    role: Annotated[str, typer.Option(metavar="ROLE", help="viewer, operator or signer.")],
    database: Database = DATABASE,
    product: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A product it is good for; repeat for more. Default: all.")
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Whose it is.")] = "",
    days: Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="How long it is valid.")] = 90,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Make a token and print it, once. Tokens of signers are made here only."""
    with stdout_kept():
        administer = _administer()

        made = administer.make_token(database, role=role, products=tuple(product or ()), note=note, days=days)
    if json:
        print_document({"id": made.id, "token": made.text})
    else:
        stdout_console().print(f"{role}'s token, shown this once: [bold]{made.text}[/]", soft_wrap=True)
    return 0


@fleet.command()
def audit(
    database: Database = DATABASE,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Check that no line of the audit log was changed or taken away; exit 1 where one was."""
    with stdout_kept():
        administer = _administer()

        lines, broken_at = administer.check_audit(database)
    if json:
        print_document({"lines": lines, "broken_at": broken_at})
    elif broken_at is None:
        stdout_console().print(f"{lines} lines, each follows from the one before")
    else:
        stdout_console().print(f"line {broken_at} does not follow from the one before")
    return 0 if broken_at is None else 1


@fleet.command()
def serve(
    database: Database = DATABASE,
    store: Store = STORE,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")] = 8700,
    poll_interval: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=86400, help="How often a device asks for an update.")
    ] = 300,
    poll_jitter: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=10, help="Share of the interval that spreads the polls.")
    ] = 1.0,
    trusted: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Public keys (*.pub) whose seals are accepted on releases.")
    ] = None,
    online: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The server's own keys, as `edgewise repo init` made them: to publish rollouts."
        ),
    ] = None,
    trusted_root: Annotated[
        Path, typer.Option(metavar="FILE", help="The root that `edgewise repo init` wrote.")
    ] = Path("trusted-root.json"),
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Sends telemetry on to an OpenTelemetry collector: http://HOST:4318/v1/metrics."
        ),
    ] = None,
    tick: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, max=60, help="How often rollouts and telemetry move on.")
    ] = 2.0,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Answer devices and operators until stopped. Logs go to stderr, one JSON object a line."""
    with stdout_kept():
        administer = _administer()
        from edgewise.fleet.settings import Settings  # noqa: PLC0415

        administer.serve(
            Settings(
                database=database,
                store=store,
                host=host,
                port=port,
                poll_interval_s=poll_interval,
                poll_jitter=poll_jitter,
                tick_s=tick,
                otlp=otlp,
                trusted=trusted,
                keys=online,
                trusted_root=trusted_root,
            )
        )
    return 0


def _administer() -> ModuleType:
    """Return what does the work; an install without the server is told which extra is missing."""
    from edgewise.runtimes.base import require  # noqa: PLC0415 - loads a runtime

    for library in ("litestar", "granian", "sqlalchemy", "obstore"):
        require(library, extra="fleet")
    from edgewise.fleet import administer  # noqa: PLC0415 - needs what was just asked for

    return administer
