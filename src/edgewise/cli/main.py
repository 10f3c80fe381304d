"""The command `edgewise`: its verbs, and how each way to end becomes an exit code.

0 a variant fits, 1 the work failed, 2 what was given cannot be used, 3 nothing fits the budget,
130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from inspect import getdoc
from typing import Annotated

import typer

from edgewise import __version__
from edgewise.cli import agent, bundle, data, demo, fleet, inspect, keys, optimize, repo, seal, targets, verify
from edgewise.cli.console import report_error
from edgewise.errors import EdgewiseError

INTERRUPTED = 130

app = typer.Typer(
    name="edgewise",
    help="Quantize a trained model until it fits what your device can afford, and measure that it does.",
    epilog="Start with: edgewise demo\n\nThen: edgewise optimize model.onnx --data DIR --flip-rate 0.02",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb, epilog in (
    (optimize.optimize, optimize.EPILOG),
    (verify.verify, verify.EPILOG),
    (seal.seal, seal.EPILOG),
    (inspect.inspect, inspect.EPILOG),
    (demo.demo, demo.EPILOG),
):
    # typer keeps the line breaks of a docstring; a help text shall break where the terminal ends.
    app.command(help=re.sub(r"(?<!\n)\n(?!\n)", " ", getdoc(verb) or ""), epilog=epilog)(verb)


@app.command(
    name="agent",
    help="The agent of a device: enroll, run, status, infer.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def _agent(context: typer.Context) -> int:
    return agent.run(context.args)


app.add_typer(targets.targets, name="targets")
app.add_typer(fleet.fleet, name="fleet")
app.add_typer(repo.repo, name="repo")
app.add_typer(data.data, name="data")
app.add_typer(bundle.bundle, name="bundle")
app.add_typer(keys.keys, name="keys")


def main() -> None:
    """Run the command line and exit."""
    # Before numpy is loaded: its products are small, and threads of their own disturb what is measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a sign gets a question mark, not a crash
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong is told in one message."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    json, debug = "--json" in options, "--debug" in options
    try:
        result = typer.main.get_command(app)(list(arguments), prog_name="edgewise", standalone_mode=False)
    except EdgewiseError as error:
        report_error(error, json=json, debug=debug)
        return error.exit_code
    except typer.TyperException as error:
        report_error(_usage(error), json=json, debug=debug, kind="UsageError")
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe has gone: `edgewise targets list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place that can say anything
        report_error(_internal(error), json=json, debug=debug, kind="InternalError")
        return 1
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        report_error(_interrupted(), json=json, debug=False, kind="Interrupted")
    return code


def _version(*, wanted: bool) -> None:
    if wanted:
        print(f"edgewise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


def _usage(error: typer.TyperException) -> EdgewiseError:
    command = getattr(getattr(error, "ctx", None), "command_path", "edgewise")
    return EdgewiseError(error.format_message().rstrip("."), next_step=f"see `{command} --help`")


def _internal(error: Exception) -> EdgewiseError:
    lines = str(error).strip().splitlines()
    found = EdgewiseError(
        f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}",
        next_step="this is a fault of edgewise: run the same command with --debug and report what it prints",
    )
    found.__cause__ = error
    return found


def _interrupted() -> EdgewiseError:
    return EdgewiseError("interrupted", next_step="run the same command again: it goes on where it stopped")


if __name__ == "__main__":
    main()
