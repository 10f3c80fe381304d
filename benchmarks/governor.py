"""What the governor is worth under a real CPU hog and on a duty-cycled core, and what a switch costs.

    edgewise seal RUN -o model-1.0.0.edgewise --key seal.pem
    edgewise bundle extract model-1.0.0.edgewise FOLDER
    python benchmarks/governor.py FOLDER --wanted fp32 [--record trace.csv]
    python benchmarks/governor.py --replay trace.csv

A child process on one core runs frames at a fixed rate, each with a deadline of one period: with the wanted variant
alone, with the lowest that joined alone, then with the governor. Each time the same happens to it: calm; on every core
a process that only counts; calm; its core taken for 2.4 of every 4 ms (`pressure.py`); calm. All of them go before
other work of the machine where that is allowed, which leaves less of it in the figures.

What happens live is never quite the same three times. So the two fixed streams are also a trace, over which the
governor's own code is replayed: the same frames, with and without it, and the same figures every time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pressure
from edgewise.contracts.outcome import OutcomeKind
from edgewise.device.governor.adaptive import AdaptiveRuntime
from edgewise.device.governor.joining import Joined
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.governor.replay import Frame, Phase, Trace, parse, replay
from edgewise.device.governor.sensors import Sensors

PHASES = (("calm", 8.0), ("hog", 25.0), ("calm", 20.0), ("duty", 25.0), ("calm", 20.0))
CORE = max(os.sched_getaffinity(0))
LOCAL = {OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED}
GOVERNED, WANTED, LOWEST = "governed", "wanted alone", "lowest alone"
CAN = 0.01
"""A variant that misses less of a phase holds it."""


class Stream(NamedTuple):
    """One stream: of every frame whether it was missed and what answered; switches in seconds from the first frame."""

    missed: list[bool]
    variants: list[str]
    switches: list[tuple[float, str]]


def child(folder: Path, wanted: str, mode: str, use: float) -> None:
    """Say who joined, wait for a line, run the stream, write what happened as JSON."""
    os.sched_setaffinity(0, {CORE})
    pressure.go_first()
    policy = GovernorPolicy()
    runtime = AdaptiveRuntime.open(folder, wanted=wanted, policy=policy)
    levels = runtime.joined.levels
    if mode != GOVERNED:
        kept = levels[:1] if mode == WANTED else levels[-1:]
        members = [each for each in runtime.members if each.variant == kept[0].variant]
        runtime = AdaptiveRuntime(members, Joined(kept, ()), policy=policy, sensors=Sensors())
    period_ms = levels[0].latency_ms / use
    told = {"levels": [[each.variant, each.latency_ms, each.memory_mib] for each in levels], "period_ms": period_ms}
    told["declined"] = [list(each) for each in runtime.joined.declined]
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
        variants[frame] = runtime.ready.variant
        started = time.monotonic_ns()
        left_ms = (due + period_ns - started) / 1e6
        outcome = runtime.infer(feeds, deadline_ms=max(left_ms, 0.0)).outcome
        taken_ms[frame] = (time.monotonic_ns() - started) / 1e6
        missed[frame] = outcome.kind not in LOCAL or (outcome.slack_ms or 0.0) < 0
        loads[frame] = -1 if runtime.sensed.load is None else runtime.sensed.load
    done = {"missed": missed.tolist(), "taken_ms": taken_ms.round(3).tolist(), "variants": variants}
    done["missing"] = list(runtime.sensed.missing)
    done |= {"loads": loads.round(2).tolist(), "switches": [list(each) for each in runtime.switches]}
    print(json.dumps(done | {"begin_s": begin / 1e9, "period_ms": period_ns / 1e6}), flush=True)


def run(given: argparse.Namespace, mode: str, period_ms: float | None) -> dict[str, Any]:
    """Return what happened to one stream, with who joined and how long the core was taken."""
    command = [sys.executable, __file__, str(given.folder), "--wanted", given.wanted, "--use", str(given.use)]
    process = subprocess.Popen(
        [*command, "--child", mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    told: dict[str, Any] = json.loads(process.stdout.readline()) | {"held": []}
    process.stdin.write(json.dumps({"period_ms": period_ms}) + "\n")
    imposed: dict[str, AbstractContextManager[None]] = {
        "hog": pressure.hogs(),
        "duty": pressure.duty_cycled(CORE, given.turn_ms, given.taken, told["held"]),
    }
    end = time.monotonic()
    for name, seconds in PHASES:
        end += seconds
        with imposed.get(name, nullcontext()):
            time.sleep(max(end - time.monotonic(), 0))
    done: dict[str, Any] = json.loads(process.stdout.readline())
    process.wait()
    return told | done


def traced(first: dict[str, Any], last: dict[str, Any]) -> Trace:
    """Return the trace of the two fixed streams, with the load of the lower one."""
    ends = np.cumsum([seconds for _, seconds in PHASES]) * 1e3 / first["period_ms"]
    phases = [
        Phase(name, min(int(end), len(first["missed"]))) for (name, _), end in zip(PHASES, ends.tolist(), strict=True)
    ]
    frames = []
    for frame, load in enumerate(last["loads"]):
        taken = [None if done["missed"][frame] else done["taken_ms"][frame] for done in (first, last)]
        frames.append(Frame(tuple(taken), None if load < 0 else load))
    return Trace(first["period_ms"], tuple(phases), tuple(frames))


def write(path: Path, trace: Trace) -> None:
    """Keep a trace."""
    rows = [f"# period_ms {trace.period_ms:.3f}, " + ", ".join(f"{each.name} {each.end}" for each in trace.phases)]
    rows.append("wanted_ms,lowest_ms,load")
    for frame in trace.frames:
        cells = ["" if each is None else f"{each:.1f}" for each in frame.taken_ms]
        rows.append(",".join([*cells, "" if frame.load is None else f"{frame.load:.2f}"]))
    path.write_text("\n".join(rows) + "\n")


def lived(done: dict[str, Any]) -> Stream:
    """Return the stream that happened."""
    switches = [(at_s - done["begin_s"], f"{now} [{cause}] {why}") for at_s, _, now, cause, why, _ in done["switches"]]
    return Stream(done["missed"], done["variants"], switches)


def replayed(trace: Trace, names: tuple[str, str]) -> Stream:
    """Return the stream that the governor would have made of the trace."""
    found = replay(trace, GovernorPolicy())
    period_s = trace.period_ms / 1e3
    switches = [((each.frame + 1) * period_s, f"{names[each.level]} [{each.cause}] {each.reason}") for each in found[2]]
    return Stream(found.missed, [names[each] for each in found.levels], switches)


def show(streams: dict[str, Stream], trace: Trace) -> None:
    """Print the misses by phase, the switches, and whether what was promised held."""
    ends = [0, *(each.end for each in trace.phases)]
    period_s, dwell_s = trace.period_ms / 1e3, GovernorPolicy().dwell_s
    spans = [slice(*each) for each in pairwise(ends)]
    shares = {mode: [float(np.mean(each.missed[span])) for span in spans] for mode, each in streams.items()}
    print(f"  {'misses':13} {'all':>9} " + " ".join(f"{each.name:>9}" for each in trace.phases))
    for mode, each in streams.items():
        total = sum(each.missed) / len(each.missed)
        print(f"  {mode:13} {total:9.2%} " + " ".join(f"{share:9.2%}" for share in shares[mode]))
    governed = streams[GOVERNED]
    wanted = streams[WANTED].variants[0]
    for at_s, words in governed.switches:
        print(f"  {at_s:6.1f} s  -> {words}")
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(governed.switches)]
    print(f"  {len(governed.switches)} switches, {min(gaps, default=np.inf):.2f} s apart or more; dwell {dwell_s:g} s")
    for phase, span, lowest, own in zip(trace.phases, spans, shares[LOWEST], shares[GOVERNED], strict=True):
        if phase.name != "calm":
            can = f"the lower variant can ({lowest:.2%})" if lowest < CAN else f"the lower cannot either ({lowest:.2%})"
            print(f"  {phase.name}: {can}; governed {own:.2%}{'' if lowest >= CAN else holds(is_kept=own < CAN)}")
        elif span.start:
            names = governed.variants[span]
            share = names.count(wanted) / len(names)
            back = f"{wanted} after {names.index(wanted) * period_s:.1f} s, for {share:.0%} of it" if share else "never"
            print(f"  calm after it: back at {back}{holds(is_kept=share > 0)}")
    print(f"  at most one switch a dwell time{holds(is_kept=min(gaps, default=np.inf) >= dwell_s)}")
    least, most = sum(governed.missed), sum(streams[WANTED].missed)
    print(
        f"  fewer misses with it: {least} against {most} of {len(governed.missed)} frames{holds(is_kept=least < most)}"
    )


def holds(*, is_kept: bool) -> str:
    """Return whether a promise held, in words."""
    return ": holds" if is_kept else ": DOES NOT HOLD"


def show_costs(done: dict[str, Any]) -> None:
    """Print how long switches took, and the frames missed behind them."""
    after = []
    for at_s, *_ in done["switches"]:
        frame = int((at_s - done["begin_s"]) * 1e3 / done["period_ms"])
        after += done["missed"][frame + 1 : frame + 3]
    took = [each[-1] for each in done["switches"]]
    if took:
        print(f"  a switch takes {np.median(took):.0f} us (median), {max(took):.0f} us at most")
        print(f"  frames missed among the two after each switch: {sum(after)} of {len(after)}")


def main() -> None:
    """Run all three and print; or print what a recording gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--wanted", help="the variant that answers while nothing presses")
    parser.add_argument("--use", type=float, default=0.4, help="share of a period that the wanted variant takes alone")
    parser.add_argument("--turn-ms", type=float, default=4.0, help="of the duty-cycled core")
    parser.add_argument("--taken", type=float, default=0.6, help="share of a turn in which others have the core")
    parser.add_argument("--record", type=Path, help="keep the trace")
    parser.add_argument("--replay", type=Path, help="run nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        trace, names = parse(given.replay.read_text()), ("wanted", "lowest")
    elif given.folder is None or given.wanted is None:
        parser.error("give FOLDER and --wanted, or --replay")
    elif given.child:
        child(given.folder, given.wanted, given.child, given.use)
        return
    else:
        trace, names = live(given)
    fixed = {mode: Stream(trace.missed(at), [names[at]], []) for at, mode in enumerate((WANTED, LOWEST))}
    print("replayed over the trace of the two fixed streams:")
    show(fixed | {GOVERNED: replayed(trace, names)}, trace)


def live(given: argparse.Namespace) -> tuple[Trace, tuple[str, str]]:
    """Run all three, print, and return the trace with the names of its levels."""
    done, period_ms = {}, None
    for mode in (WANTED, LOWEST, GOVERNED):
        done[mode] = run(given, mode, period_ms)
        period_ms = done[mode]["period_ms"]
    last = done[GOVERNED]
    print(f"deadline = period = {period_ms:.1f} ms, all on one core; not readable: {'; '.join(last['missing'])}")
    print(f"load average {os.getloadavg()[0]:.1f} at the end")
    for name, latency_ms, memory_mib in last["levels"]:
        print(f"joined: {name}, {latency_ms:.2f} ms, {'unknown' if memory_mib is None else f'{memory_mib:.1f} MiB'}")
    for name, reason in last["declined"]:
        print(f"did not join: {name}: {reason}")
    for mode, each in done.items():
        print(f"{mode}: {'; '.join(pressure.show(held) for held in each['held'])}")
    trace = traced(done[WANTED], done[LOWEST])
    if given.record:
        write(given.record, trace)
    print("live:")
    show({mode: lived(each) for mode, each in done.items()}, trace)
    show_costs(last)
    return trace, (last["levels"][0][0], last["levels"][-1][0])


if __name__ == "__main__":
    main()
