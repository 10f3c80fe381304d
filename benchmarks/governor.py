"""What the governor is worth under a real CPU hog and a duty-cycled processor, and what a switch costs.

    edgewise seal RUN -o model-1.0.0.edgewise --key seal.pem
    edgewise bundle extract model-1.0.0.edgewise FOLDER
    python benchmarks/governor.py FOLDER --wanted fp32 [--record trace.csv]

A child process runs frames at a fixed rate, each with a deadline of one period, first with the wanted variant alone,
then with the lowest that joined alone, then with the governor, and each time the same happens to it: calm; a process on
every core that only counts; calm; stopped and woken every 20 ms so that it runs half of the time; calm.
`--record` keeps how long each frame of the two fixed runs took, for replay.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device.governor.adaptive import AdaptiveRuntime
from edgewise.device.governor.joining import Joined
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.governor.sensors import Sensors
from edgewise.forge.verify.streams.conditions import contention

PHASES = (("calm", 8.0), ("hog", 25.0), ("calm", 15.0), ("half", 25.0), ("calm", 17.0))
AWAKE, TURN_S = 0.5, 0.02
LOCAL = {OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED}
GOVERNED, WANTED, LOWEST = "governed", "wanted alone", "lowest alone"


def child(folder: Path, wanted: str, mode: str, use: float, policy: GovernorPolicy) -> None:
    """Say who joined, wait for a line, run the stream, write what happened as JSON."""
    runtime = AdaptiveRuntime.open(folder, wanted=wanted, policy=policy)
    levels = runtime.joined.levels
    if mode != GOVERNED:
        kept = levels[:1] if mode == WANTED else levels[-1:]
        members = [each for each in runtime.members if each.variant == kept[0].variant]
        runtime = AdaptiveRuntime(members, Joined(kept, ()), policy=policy, sensors=Sensors())
    period_ms = levels[0].latency_ms / use
    told = {"levels": [[each.variant, each.latency_ms, each.memory_mib] for each in levels], "period_ms": period_ms}
    told["declined"] = [list(each) for each in runtime.joined.declined]
    told["missing"] = list(runtime.sensed.missing)
    print(json.dumps(told), flush=True)
    given = json.loads(sys.stdin.readline())  # all three run at one rate
    period_ns = int((given["period_ms"] or period_ms) * 1e6)
    feeds = {name: runtime.ready.session.inputs[name].copy() for name in runtime.ready.session.given}
    frames = int(sum(seconds for _, seconds in PHASES) * 1e9 / period_ns)
    missed, taken_ms, variants, loads = np.zeros(frames, bool), np.zeros(frames), [""] * frames, np.zeros(frames)
    begin = time.monotonic_ns()
    for frame in range(frames):
        due = begin + frame * period_ns
        wait = due - time.monotonic_ns()
        if wait > 0:
            time.sleep(wait / 1e9)
        left_ms = (due + period_ns - time.monotonic_ns()) / 1e6
        started = time.monotonic_ns()
        outcome = runtime.infer(feeds, deadline_ms=max(left_ms, 0.0)).outcome
        ended = time.monotonic_ns()
        taken_ms[frame] = (ended - started) / 1e6
        missed[frame] = outcome.kind not in LOCAL or (outcome.slack_ms or 0.0) < 0
        variants[frame] = outcome.variant or runtime.ready.variant
        loads[frame] = -1 if runtime.sensed.load is None else runtime.sensed.load
    print(
        json.dumps(
            {
                "missed": missed.tolist(),
                "taken_ms": taken_ms.round(3).tolist(),
                "variants": variants,
                "loads": loads.round(2).tolist(),
                "switches": [list(each) for each in runtime.switches],
                "begin_s": begin / 1e9,
                "period_ms": period_ns / 1e6,
            }
        ),
        flush=True,
    )


@contextmanager
def half(process: int) -> Iterator[None]:
    """Stop a process and wake it again, in turns."""
    end = threading.Event()

    def turns() -> None:
        while not end.is_set():
            _send(process, signal.SIGSTOP)
            end.wait((1 - AWAKE) * TURN_S)
            _send(process, signal.SIGCONT)
            end.wait(AWAKE * TURN_S)

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        _send(process, signal.SIGCONT)


def _send(process: int, number: signal.Signals) -> None:
    os.kill(process, number)


@contextmanager
def calm() -> Iterator[None]:
    """Change nothing."""
    yield


def pressure(name: str, process: int) -> AbstractContextManager[None]:
    """Return what is imposed in a phase."""
    if name == "hog":
        return contention([])
    return half(process) if name == "half" else calm()


def run(folder: Path, given: argparse.Namespace, mode: str, period_ms: float | None) -> dict[str, Any]:
    """Return what happened to one stream, with who joined."""
    command = [sys.executable, __file__, str(folder), "--wanted", given.wanted, "--use", str(given.use)]
    process = subprocess.Popen(
        [*command, "--child", mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    told: dict[str, Any] = json.loads(process.stdout.readline())
    process.stdin.write(json.dumps({"period_ms": period_ms}) + "\n")
    for name, seconds in PHASES:
        with pressure(name, process.pid):
            time.sleep(seconds)
    done: dict[str, Any] = json.loads(process.stdout.readline())
    process.wait()
    return told | done


def shares(done: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Return misses and frames of each phase."""
    ends = np.cumsum([0.0, *(seconds for _, seconds in PHASES)]) * 1e3 / done["period_ms"]
    missed = np.array(done["missed"])
    bounds = [min(int(each), len(missed)) for each in ends]
    return [
        (name, int(missed[low:high].sum()), high - low)
        for (name, _), low, high in zip(PHASES, bounds, bounds[1:], strict=False)
    ]


def show(mode: str, done: dict[str, Any]) -> None:
    """Print the misses of one stream."""
    rows = shares(done)
    total, frames = sum(row[1] for row in rows), sum(row[2] for row in rows)
    by_phase = ", ".join(f"{name} {missed}/{count} ({missed / count:.2%})" for name, missed, count in rows)
    print(f"{mode:13} misses {total}/{frames} = {total / frames:.2%}: {by_phase}")


def show_switches(done: dict[str, Any], policy: GovernorPolicy) -> None:
    """Print every switch, the least time between two, what they cost, and which variant answered at the end."""
    period_ms, missed = done["period_ms"], np.array(done["missed"])
    after = []
    for at_s, before, now, cause, reason, took_us in done["switches"]:
        frame = int((at_s - done["begin_s"]) * 1e3 / period_ms)
        after.append(missed[frame + 1 : frame + 3])
        print(f"  {at_s - done['begin_s']:6.1f} s  {before} -> {now}  [{cause}] {reason}  ({took_us:.0f} us)")
    times = [each[0] for each in done["switches"]]
    gaps = np.diff(times)
    took = [each[5] for each in done["switches"]]
    lost = int(sum(each.sum() for each in after))
    print(f"  {len(times)} switches, least {gaps.min():.2f} s apart (dwell {policy.dwell_s:g} s)" if len(gaps) else "")
    print(f"  a switch takes {np.median(took):.0f} us (median), {max(took):.0f} us at most" if took else "  no switch")
    print(f"  frames missed among the two after each switch: {lost} of {sum(each.size for each in after)}")
    print(f"  the last frame was answered by {done['variants'][-1]}")


def record(path: Path, first: dict[str, Any], last: dict[str, Any]) -> None:
    """Keep what each frame took (ms) with either variant alone, nothing where it was missed, and the load."""
    ends = np.cumsum([seconds for _, seconds in PHASES]) * 1e3 / first["period_ms"]
    rows = [f"# period_ms {first['period_ms']:.3f}, phases end at frames {', '.join(f'{each:.0f}' for each in ends)}"]
    rows.append("wanted_ms,lowest_ms,load")
    for frame, load in enumerate(last["loads"]):
        cells = ["" if done["missed"][frame] else f"{done['taken_ms'][frame]:.1f}" for done in (first, last)]
        rows.append(",".join([*cells, "" if load < 0 else f"{load:.2f}"]))
    path.write_text("\n".join(rows) + "\n")


def main() -> None:
    """Run all three and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wanted", required=True, help="the variant that answers while nothing presses")
    parser.add_argument("--use", type=float, default=0.4, help="share of a period that the wanted variant takes alone")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    policy = GovernorPolicy()
    if given.child:
        child(given.folder, given.wanted, given.child, given.use, policy)
        return
    found, period_ms = {}, None
    for mode in (WANTED, LOWEST, GOVERNED):
        found[mode] = run(given.folder, given, mode, period_ms)
        period_ms = found[mode]["period_ms"]
    first = found[WANTED]
    print(f"deadline = period = {period_ms:.1f} ms; not readable here: {'; '.join(first['missing'])}")
    for name, latency_ms, memory_mib in found[GOVERNED]["levels"]:
        print(f"joined: {name}, {latency_ms:.2f} ms, {'unknown' if memory_mib is None else f'{memory_mib:.1f} MiB'}")
    for name, reason in found[GOVERNED]["declined"]:
        print(f"did not join: {name}: {reason}")
    for mode, done in found.items():
        show(mode, done)
    show_switches(found[GOVERNED], policy)
    if given.record:
        record(given.record, first, found[LOWEST])


if __name__ == "__main__":
    main()
