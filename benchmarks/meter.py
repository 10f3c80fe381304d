"""Runs one command and reports what it cost: wall time, processor time and peak memory.

    python meter.py --folder DIR [--limit-mib N] [--timeout S] -- COMMAND ...

The report is DIR/meter.json; the command's output is DIR/stdout.txt and DIR/stderr.txt. `cpu_seconds`
is processor time, of the command and of the children it waited for.

A process of its own, because Linux hands the parent's peak memory down to a child: a small
parent makes the child's figure its own. `peak_rss_mib` is the largest single process of the
command, by the kernel's account; `peak_tree_mib` is the sum over the command and its
children (proportional set size, sampled as often as 2 % of the time allows), so that work
given to a pool of processes counts too. `cpu_seconds` is user and system time of the command and
of the children it waited for. A command over the limit or the time is ended and the report says why.
"""

import argparse
import json
import os
import signal
import subprocess
import time
from pathlib import Path

POLL_SECONDS = 0.1
SAMPLE_SHARE = 0.02  # of the time; walking the pages of a large process is not free


def descendants(pid: int) -> list[int]:
    """`pid` and the processes below it, while they live."""
    found, queue = list[int](), [pid]
    while queue:
        current = queue.pop()
        found.append(current)
        try:
            for thread in Path(f"/proc/{current}/task").iterdir():
                queue += map(int, (thread / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return found


def proportional_mib(pid: int) -> float:
    """Proportional set size of one process, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(command: list[str], folder: Path, limit_mib: float, timeout: float) -> dict[str, object]:
    """Run `command`; never raises for what the command does."""
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        start = time.perf_counter()
        try:
            # A group and not a session of its own: Linux shares a busy machine out by sessions, and the command
            # shall have the share that the benchmark was given.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0)
        except OSError as error:
            costs = dict.fromkeys(("wall_seconds", "cpu_seconds", "peak_rss_mib", "peak_tree_mib"))
            return costs | {"exit_code": None, "ended": f"could not be started: {error}"}
    peak_tree, ended, next_sample = 0.0, None, 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - start
        if pid:
            break
        if wall >= next_sample:
            now = sum(map(proportional_mib, descendants(process.pid)))
            cost = time.perf_counter() - start - wall
            peak_tree, next_sample = max(peak_tree, now), wall + cost / SAMPLE_SHARE
            if now > limit_mib:
                ended = f"ended at {now:.0f} MiB (limit {limit_mib:.0f})"
        if wall > timeout:
            ended = f"ended after {wall:.0f} s (limit {timeout:.0f})"
        if ended:
            os.killpg(process.pid, signal.SIGKILL)  # the group started above, nothing else
        time.sleep(min(POLL_SECONDS, wall / 50))  # finely at first: short walls are not rounded up
    return {
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_rss_mib": round(usage.ru_maxrss / 1024, 1),
        "peak_tree_mib": round(max(peak_tree, usage.ru_maxrss / 1024), 1),
        "exit_code": os.waitstatus_to_exitcode(status),
        "ended": ended,
    }


def main() -> None:
    """Parse, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limit-mib", type=float, default=10 * 1024)
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    report = measure(args.command, args.folder, args.limit_mib, args.timeout)
    (args.folder / "meter.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
