"""Kills a real agent at every write, fsync, rename, unlink and mkdir of an update, and starts it again.

Each cut: an agent that runs 1.2.0 is started (its own process: TUF client, trial in a worker, local HTTP, telemetry),
meets 1.3.0, and is killed by SIGKILL at one step; a write that is cut leaves half of its bytes. Then it is started
again, and must answer with a confirmed bundle at once and with 1.3.0 soon after. None is left out: the steps are
counted, and the run ends at the first cut that comes after the new bundle was confirmed and told. Writes of SQLite
(the spool of telemetry) are made in C and not among the steps; tests/faults has them.

    python benchmarks/power_cuts.py                 # full and delta, ten minutes each on a busy core
    python benchmarks/power_cuts.py --every 10      # a tenth of them, to see that it works
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import checkout  # noqa: F401  (makes `tests` importable)
from edgewise.bundle.delta_make import candidates
from edgewise.device.agent import client
from edgewise.device.agent import status as statuses
from edgewise.device.agent.running import run
from edgewise.device.agent.settings import Settings
from edgewise.device.slots import State
from edgewise.errors import AgentError
from tests.faults.device.agents import enrol, publish
from tests.faults.device.bundles import sample
from tests.faults.device.test_power_cuts import Power
from tests.faults.trust.fleet import Fleet, served

OLD, NEW = "1.2.0", "1.3.0"
STEPS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")
MOST_WAIT_S = 120.0


def main() -> int:
    """Cut, and print how many cuts there were; 1 where a device did not come back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth step")
    parser.add_argument("--only", choices=("full", "delta"), help="one of the two ways to update")
    options = parser.parse_args()
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
    failed = 0
    for way in ("full", "delta"):
        if options.only not in {None, way}:
            continue
        with tempfile.TemporaryDirectory(prefix="cuts-", dir=memory) as folder:
            failed += cut_everywhere(Path(folder), way, every=options.every)
    return 1 if failed else 0


def cut_everywhere(folder: Path, way: str, *, every: int) -> int:
    """Update with every cut; print the count; return how many devices did not come back."""
    fleet = Fleet(folder)
    with served(fleet.store) as url:
        old = publish(fleet, OLD)
        fleet.direct(old)
        begun = enrol(fleet, url, poll_interval_s=0)
        if stopped(start(begun), answered(begun, OLD)) is None:
            raise RuntimeError("the device did not take its first bundle")
        new = publish(fleet, NEW)
        if way == "delta":
            made = candidates(*((folder / f"{each}.edgewise").read_bytes() for each in (OLD, NEW)))
            (fleet.store / "repository" / "deltas").mkdir()
            path = fleet.store / "repository" / "deltas" / f"{old.sha256}-{new.sha256}.delta"
            path.write_bytes(min(made, key=lambda each: len(each.data)).data)
            # The whole bundle is not there: what arrives has come as a delta.
            folder_, _, name = new.target.partition("/")
            (fleet.store / "repository" / "targets" / folder_ / f"{new.sha256}.{name}").unlink()
        fleet.direct(new)
        at = cuts = on_old = on_new = failed = 0
        begin = time.monotonic()
        while True:
            at += every
            device = folder / "device"
            shutil.rmtree(device, ignore_errors=True)
            os.system(f"cp -a {begun} {device}")  # noqa: S605 - paths of this script
            told = cut(device, at)
            cuts += 1
            first, last = come_back(device)
            on_old, on_new = on_old + (first == OLD), on_new + (first == NEW)
            if first not in {OLD, NEW} or last != NEW:
                failed += 1
                print(f"{way}: cut at step {at}: answered {first!r}, later {last!r}")
            if told == NEW:
                break
    every_ = f" (every {every}th)" if every > 1 else ""
    print(
        f"{way}: {cuts} cuts at steps up to {at}{every_}: {on_old} came back with {OLD}, {on_new} with {NEW}, "
        f"{cuts - failed} reached {NEW}, {failed} did not; {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    return failed


def cut(device: Path, at: int) -> str | None:
    """Run the agent until it is killed at a step; return the release that it had told of by then."""
    power = Power(at)

    def guarded() -> None:
        for name in STEPS:
            setattr(os, name, power.guard(getattr(os, name)))
        io.open = power.open(io.open)

    child = start(device, guarded)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f"the agent ended with {status} before step {at}")
    found = statuses.kept(device)
    state = msgspec.json.decode((device / "state.json").read_bytes(), type=State)
    is_confirmed = state.running is not None and state.running.release.version == NEW
    return found.release if found is not None and is_confirmed else None


def come_back(device: Path) -> tuple[str | None, str | None]:
    """Start the agent; return the release that answers first, and the last one."""
    child = start(device)
    first = answered(device, None)
    return first, stopped(child, answered(device, NEW))


def answered(device: Path, release: str | None) -> str | None:
    """Wait until a release answers an inference, any where None; return the one that did, None where time is up."""
    deadline = time.monotonic() + MOST_WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(AgentError):
            status, runs = client.status(device)
            if runs and status.release is not None and release in {None, status.release}:
                kind = {"Content-Type": "application/octet-stream"}
                found = client.ask(device, "POST", "/v1/infer", body=sample().tobytes(), headers=kind)
                return status.release if found.status == 200 else None
        time.sleep(0.02)
    return None


def stopped(child: int, found: str | None) -> str | None:
    """Stop an agent; return `found`, or None where it did not end well."""
    os.kill(child, signal.SIGTERM)
    return found if os.waitpid(child, 0)[1] == 0 else None


def start(device: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start an agent in a child process; return its id."""
    child = os.fork()
    if child == 0:
        try:
            logging.disable()
            before()
            run(device, Settings())
        except BaseException as error:  # noqa: BLE001 - the parent sees the status
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return child


if __name__ == "__main__":
    sys.exit(main())
