"""`edgewise agent audit`: the log of fallbacks, for a person. The base install is enough."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edgewise.cli.console import clean, print_document

EPILOG = """\
examples:
  edgewise agent audit                     the last 50 fallbacks, and whether the log is as it was written
  edgewise agent audit --last 0 --json     all of them, for machines
  edgewise agent audit --head 3b1f...      also whether what was there when this head was noted still is

exit code: 0 the log is as it was written, 1 it is not
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--log", type=Path, metavar="DIR", help="The log's folder; `audit` in the folder without it.")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="Show the last N entries; 0 shows all.")
    parser.add_argument("--head", metavar="DIGEST", help="A head that was noted earlier, which must still be there.")


def audit(given: argparse.Namespace) -> int:
    """Print the log and what is wrong with it. Raises DataError where there is none."""
    from edgewise.device.audit.reading import read_audit  # noqa: PLC0415 - each verb loads what it needs

    found = read_audit(given.log or given.folder / "audit")
    problems = list(found.problems)
    if given.head is not None and not found.holds(given.head):
        problems.append(f"the head {given.head[:64]} is not there: lines were taken away, or rotated out since")
    shown = found.entries[-given.last :] if given.last > 0 else found.entries
    if given.json:
        document = {
            "entries": msgspec.to_builtins(shown),
            "total": len(found.entries),
            "dropped": found.dropped,
            "torn_bytes": found.torn_bytes,
            "head": found.head,
            "problems": problems,
        }
        print_document(document)
        return 1 if problems else 0
    for entry in shown:
        at = datetime.fromtimestamp(entry.last_unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
        slack = "" if entry.least_slack_ms is None else f"  slack {entry.least_slack_ms:.3g} ms"
        lost = f"  ({entry.lost_before} before it were lost)" if entry.lost_before else ""
        by = f"  {entry.variant}" if entry.variant else ""
        kind = entry.kind or "device"
        print(clean(f"{entry.number:>7}  {at}  {entry.count:>4} x {kind:<14}{by}  {entry.reason}{slack}{lost}"))
    print(f"{len(found.entries)} entries in {found.segments} files, {found.dropped} older ones were rotated out")
    if found.torn_bytes:
        print(f"the last write was cut off: {found.torn_bytes} bytes of it are there")
    print(f"head {found.head}")
    for problem in problems:
        print(f"NOT AS WRITTEN: {clean(problem)}")
    if not problems:
        print("every line is as it was written")
    return 1 if problems else 0
