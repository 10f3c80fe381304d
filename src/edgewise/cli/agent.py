"""`edgewise agent`: the device. It needs nothing but the base install, so it is the standard library's argparse."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from edgewise.cli.audit import add_options, audit
from edgewise.cli.console import clean, print_document
from edgewise.errors import AgentError, ConfigError, DataError, EdgewiseError

if TYPE_CHECKING:
    from edgewise.device.agent.status import StageStatus

FOLDER = Path("device")
EXAMPLES = """\
examples:
  edgewise agent enroll --server https://fleet.example --token ewe_... --root trusted-root.json
  edgewise agent run
  edgewise agent status --json
  edgewise agent infer sample.npz --deadline-ms 20
"""


class _Parser(argparse.ArgumentParser):
    """Wrong options are an error like every other."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, next_step=f"see `{self.prog} --help`")


def main() -> None:
    """Run the command and exit; whatever goes wrong is told in one message."""
    arguments = sys.argv[2:]
    try:
        code = run(arguments)
    except EdgewiseError as error:
        _report(error, json="--json" in arguments, debug="--debug" in arguments)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises EdgewiseError."""
    given = _parser().parse_args(arguments)
    code: int = given.verb(given)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edgewise agent",
        description="The agent of a device: joins a fleet, updates, runs the model, answers local applications.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    enroll = _verb(verbs, "enroll", _enroll, "Join a fleet with a one-time token.")
    enroll.add_argument("--server", required=True, metavar="URL", help="The fleet server.")
    enroll.add_argument(
        "--token", metavar="TOKEN", help="The one-time token; better in EDGEWISE_TOKEN, which no other user sees."
    )
    enroll.add_argument("--device", metavar="NAME", help="The device's name; this machine's name without it.")
    roots = enroll.add_mutually_exclusive_group(required=True)
    roots.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="The trusted root as `edgewise repo init` wrote it; director-FILE lies beside it.",
    )
    roots.add_argument(
        "--trust-on-first-use",
        action="store_true",
        help="Take both roots from the server now: safe only if nobody is in between.",
    )
    enroll.add_argument("--again", action="store_true", help="Replace an earlier enrolment.")

    running = _verb(verbs, "run", _run, "Answer and update until stopped.")
    running.add_argument(
        "--listen",
        default="",
        metavar="ADDRESS",
        help="unix:PATH or 127.0.0.1:PORT; agent.sock in the folder without it.",
    )
    running.add_argument(
        "--worker",
        action="store_true",
        help="Run models in processes of their own, as [worker] in agent.toml does: a hang or crash ends that process.",
    )
    _verb(verbs, "status", _status, "Show what runs, the last poll, refusals and latency.")
    infer = _verb(verbs, "infer", _infer, "Ask the agent once.")
    infer.add_argument("inputs", type=Path, metavar="FILE.npz", help="The model's inputs by name.")
    infer.add_argument("--new-stream", action="store_true", help="Begin a new stream: the states of stages are zeros.")
    infer.add_argument("--deadline-ms", type=float, metavar="MS", help="An answer that cannot come in time is refused.")
    add_options(_verb(verbs, "audit", audit, "Show the log of fallbacks, and whether it is as it was written."))
    infer.add_argument("--output", "-o", type=Path, metavar="FILE.npz", help="Write the outputs there.")
    return parser


def _verb(verbs: argparse._SubParsersAction[_Parser], name: str, does: object, words: str) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=words, description=words)
    made.set_defaults(verb=does)
    made.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help=f"What the device keeps; {FOLDER}/ without it."
    )
    made.add_argument("--json", action="store_true", help="Print one JSON document to stdout, also for an error.")
    made.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return made


def _enroll(given: argparse.Namespace) -> int:
    from edgewise.device.agent import enrolment  # noqa: PLC0415 - each verb loads what it needs
    from edgewise.device.agent.folder import alone  # noqa: PLC0415
    from edgewise.device.trust.pace import Pace  # noqa: PLC0415
    from edgewise.device.trust.transport import Transport  # noqa: PLC0415

    token = given.token or os.environ.get("EDGEWISE_TOKEN", "")
    if not token:
        raise ConfigError("no token", required="a one-time token", next_step="give --token, or set EDGEWISE_TOKEN")
    roots = None if given.root is None else enrolment.read_roots(given.root)
    existed = given.folder.exists()
    try:
        with alone(given.folder):
            identity = enrolment.enrol(
                given.folder,
                server=given.server,
                token=token,
                device=given.device or socket.gethostname(),
                roots=roots,
                again=given.again,
                transport=Transport(Pace()),
            )
    except EdgewiseError:
        if not existed:
            _take_away(given.folder)
        raise
    if given.json:
        print_document(identity)
    else:
        print(f"{identity.device} has joined {identity.product} as {identity.device_class}: edgewise agent run")
    return 0


def _take_away(folder: Path) -> None:
    """Remove a folder that was made for an enrolment that failed."""
    import shutil  # noqa: PLC0415

    shutil.rmtree(folder, ignore_errors=True)


def _run(given: argparse.Namespace) -> int:
    from edgewise.device.agent.folder import SETTINGS  # noqa: PLC0415
    from edgewise.device.agent.logs import log_to  # noqa: PLC0415
    from edgewise.device.agent.running import run as run_agent  # noqa: PLC0415
    from edgewise.device.agent.settings import WorkerOptions, read_settings  # noqa: PLC0415

    settings = read_settings(given.folder / SETTINGS)
    if given.worker and settings.worker is None:
        settings = msgspec.structs.replace(settings, worker=WorkerOptions())
    log_to(sys.stderr)
    run_agent(given.folder, settings, listen=given.listen)
    return 0


def _status(given: argparse.Namespace) -> int:
    from edgewise.device.agent import client  # noqa: PLC0415

    status, runs = client.status(given.folder)
    if given.json:
        print_document({"running": runs, **msgspec.to_builtins(status)})
        return 0
    last, latency = status.last_poll, status.latency_ms
    rows = [
        (
            "device",
            f"{status.device} ({status.product}, {status.device_class}){'' if runs else ': the agent does not run'}",
        ),
        ("release", f"{status.release or 'none'}, slot {status.slot or '-'}, variant {status.variant or '-'}"),
        *(("stage", f"{each.name}: {_stage(each)}") for each in status.stages),
        ("before", status.previous or "-"),
        ("shadow", status.shadow or "-"),
        *([("recovered", status.recovered)] if status.recovered else []),
        ("floor", status.floor),
        ("last poll", "never" if last is None else last.result + (f": {last.problem.found}" if last.problem else "")),
        ("outcomes", ", ".join(f"{count} {kind}" for kind, count in sorted(status.outcomes.items())) or "-"),
        ("refusals", ", ".join(f"{count} {kind}" for kind, count in sorted(status.refusals.items())) or "-"),
        (
            "latency",
            "-"
            if latency.p50 is None
            else f"p50 {latency.p50:.3g} ms, p95 {latency.p95:.3g} ms, p99 {latency.p99:.3g} ms",
        ),
        ("answers at", status.listen),
    ]
    for word, text in rows:
        print(f"{word:<11}{clean(text)}")
    return 0


def _stage(each: StageStatus) -> str:
    restarts = f", {each.restarts} restarts" if each.restarts else ""
    return f"{each.variant}, {each.place}: {each.ran} ran, {each.skipped} skipped, {each.lost} lost{restarts}"


def _infer(given: argparse.Namespace) -> int:
    from edgewise.device.agent import client  # noqa: PLC0415
    from edgewise.device.agent.tensors import JSON, NPZ  # noqa: PLC0415

    try:
        body = given.inputs.read_bytes()
    except OSError as error:
        raise DataError(f"{given.inputs}: {error.strerror}", required="an npz with the model's inputs") from error
    asked = {"deadline_ms": given.deadline_ms, "stream": "new" if given.new_stream else None}
    query = "".join(f"&{name}={value}" for name, value in asked.items() if value is not None)
    accept = JSON if given.output is None else NPZ
    answer = client.ask(
        given.folder,
        "POST",
        f"/v1/infer?{query.removeprefix('&')}",
        body=body,
        headers={"Content-Type": NPZ, "Accept": accept},
    )
    if answer.status == 200 and given.output is not None:
        given.output.write_bytes(answer.body)
        print_document({"outcome": msgspec.json.decode(answer.outcome)})
        return 0
    try:
        document = msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        raise AgentError(f"the agent answered {answer.status}", next_step="see its log") from error
    print_document(document)
    return 0 if answer.status == 200 else 1


def _report(error: EdgewiseError, *, json: bool, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    for word, text in (("error", error.found), ("required", error.required), ("next", error.next_step)):
        if text:
            sys.stderr.write(f"{word}: {clean(text)}\n")
    if json:
        parts = {"found": error.found, "required": error.required, "next_step": error.next_step}
        print_document({"error": {"kind": type(error).__name__, **parts}})
