"""What presses a process: others that only count, and a duty-cycled core.

    python benchmarks/pressure.py CORE --turn-ms 4 --taken 0.6     (until a line is written to it)

The second is a process before which no ordinary one runs, and that takes a fixed share of every turn. It is in the
real-time class SCHED_FIFO (sched(7)), pinned to the core, and wakes by the clock, so that the turns are those that were
asked for; it says afterwards how long it really held the core, by its own clock readings. Needs the right to that class
(root, or `ulimit -r`).
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

FIRST = -20
"""Niceness."""
AWAY_NS = 100_000
"""Between two readings of the clock in a loop that does nothing else: longer means that something else ran."""


def main() -> None:
    """Take the core, in turns, until told to end; then print what was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("core", type=int, nargs="?", default=0)
    parser.add_argument("--turn-ms", type=float, default=4.0)
    parser.add_argument("--taken", type=float, default=0.6, help="share of a turn")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        go_first()
        while True:
            pass
    os.sched_setaffinity(0, {given.core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        parser.error("the real-time class is not allowed here: run as root, or raise `ulimit -r`")
    end = threading.Event()

    def await_line() -> None:
        sys.stdin.readline()
        end.set()

    threading.Thread(target=await_line, daemon=True).start()
    print("ready", flush=True)
    turn_ns = int(given.turn_ms * 1e6)
    taken_ns = int(given.taken * turn_ns)
    held, free, away = list[int](), list[int](), 0
    at, before = time.monotonic_ns(), 0
    while not end.is_set():
        at += turn_ns
        time.sleep(max(at - time.monotonic_ns(), 0) / 1e9)
        began = now = time.monotonic_ns()
        while now < at + taken_ns:
            last, now = now, time.monotonic_ns()
            away += now - last if now - last > AWAY_NS else 0
        held.append(now - began)
        if before:
            free.append(began - before)
        before = now
    told: dict[str, Any] = {
        name: (np.percentile(each, (0, 50, 99, 100)) / 1e6).round(3).tolist()
        for name, each in (("held_ms", held), ("free_ms", free))
    }
    share = (sum(held) - away) / max(sum(held) + sum(free), 1)
    print(json.dumps(told | {"turns": len(held), "share": share, "away_ms": away / 1e6}), flush=True)


@contextmanager
def duty_cycled(core: int, turn_ms: float, taken: float, told: list[dict[str, Any]]) -> Iterator[None]:
    """Take a share of a core; what was really taken is appended. Raises RuntimeError where it is not allowed."""
    command = [sys.executable, __file__, str(core), "--turn-ms", str(turn_ms), "--taken", str(taken)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hog:
        if hog.stdin is None or hog.stdout is None or hog.stdout.readline() != "ready\n":
            raise RuntimeError("the core could not be taken")
        try:
            yield
        finally:
            hog.stdin.write("\n")
            hog.stdin.flush()
            told.append(json.loads(hog.stdout.readline()))


def go_first() -> None:
    """Leave other work of this machine what this process leaves, where that is allowed; call it in its own session.

    Those that are measured and those that press them do so alike, so that between them nothing changes. A session
    has a weight of its own (autogroup, sched(7)).
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
        Path("/proc/self/autogroup").write_text(str(FIRST))


@contextmanager
def hogs() -> Iterator[None]:
    """Keep every core that this process may use busy with a process that only counts."""
    command = [sys.executable, __file__, "--count"]
    started = [subprocess.Popen(command, start_new_session=True) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def show(told: dict[str, Any]) -> str:
    """Return what was really taken, in words."""
    held, free = (" / ".join(f"{each:.2f}" for each in told[name]) for name in ("held_ms", "free_ms"))
    return (
        f"core held {told['share']:.1%} of the time in {told['turns']} turns (least / median / p99 / most, ms): "
        f"held {held}, free {free}; the holder itself was off the core for {told['away_ms']:.1f} ms in all"
    )


if __name__ == "__main__":
    main()
