"""The device's hot path: what `edgewise.device` adds to ONNX Runtime, in time and in memory.

    python benchmarks/device.py [--zoo DIR] [--only PART ...] [--inferences 1000000] [--warm-up 200000]

Each figure is a difference or a ratio within one run: calls alternate in one process, each of a pair in turn first;
processes alternate too. Needs Linux and the zoo's dscnn-kws and mobilenetv2-imagenet. Two minutes, and for `slope`
as long as a million inferences take.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgewise.device import Runtime
from edgewise.device.pipeline import End, Pipeline, Stage, Ticket, block
from edgewise.device.worker import Worker
from edgewise.errors import WorkerError
from edgewise.numerics.trend import slope_interval, theil_sen
from edgewise.runtimes.onnxruntime_ import session_options

WARM_UP = 50
DSCNN, MOBILENET = "dscnn-kws/model.onnx", "mobilenetv2-imagenet/model.onnx"
Doubles = NDArray[np.float64]


def main() -> None:
    """Measure what was asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("EDGEWISE_ZOO") or str(Path(__file__).parents[2] / "shared" / "zoo")
    parser.add_argument("--zoo", type=Path, default=Path(default))
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "overhead": overhead,
        "hop": hop,
        "worker": worker,
        "imports": imports,
        "memory": memory,
        "slope": slope,
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--inferences", type=int, default=1_000_000, help="of `slope`, a multiple of 200")
    parser.add_argument("--warm-up", type=int, default=200_000, help="of `slope`: the allocators fill their arenas")
    given = parser.parse_args()
    missing = [each for each in (DSCNN, MOBILENET) if not (given.zoo / each).is_file()]
    if missing:
        parser.error(f"{given.zoo} holds no {' and no '.join(missing)}: give --zoo or EDGEWISE_ZOO")
    for name in given.only:
        parts[name](given)


def overhead(given: argparse.Namespace) -> None:
    """Compare `Runtime.infer`, without and with a deadline, with `InferenceSession.run` of the same options."""
    for name, rounds in ((DSCNN, 6000), (MOBILENET, 800)):
        bare = _bare(given.zoo / name)
        runtime = Runtime.open(given.zoo / name, shapes=_shapes(bare))
        feeds = _feeds(runtime)
        calls = (
            lambda bare=bare, feeds=feeds: bare.run(None, feeds),
            lambda runtime=runtime, feeds=feeds: runtime.infer(feeds),
            lambda runtime=runtime, feeds=feeds: runtime.infer(feeds, deadline_ms=1000.0),
        )
        taken = _in_turns(calls, rounds)
        for at, words in ((1, "no deadline"), (2, "a deadline")):
            for q in (50, 99):
                plain, ours = np.percentile(taken[0], q), np.percentile(taken[at], q)
                print(
                    f"overhead, {name.split('/')[0]}, {words}, p{q}: bare {plain:.1f} us, ours {ours:.1f} us, "
                    f"{ours - plain:+.1f} us ({(ours / plain - 1) * 100:+.2f} %)"
                )


def hop(_given: argparse.Namespace) -> None:
    """Time an item's way from the end of one stage to the begin of the next, and into the first."""

    def stamp(value: list[int], _ticket: Ticket) -> list[int]:
        value.append(time.perf_counter_ns())
        return value

    with Pipeline([Stage(str(at), stamp, block(4)) for at in range(6)]) as pipeline:
        rows = []
        for _ in range(4000):
            ticket = pipeline.submit([time.perf_counter_ns()], deadline_ms=10_000)
            if ticket.result().end is End.OUT:
                rows.append(ticket.value)
        hops = np.diff(np.array(rows, np.float64), axis=1) / 1e3
        begin = time.perf_counter()
        tickets = [pipeline.submit([0], deadline_ms=60_000) for _ in range(4000)]
        ends = [each.result().end for each in tickets]
        full = (time.perf_counter() - begin) / 4000 / 6 * 1e6
    print(f"hop between stages: p50 {_q(hops[:, 1:], 50)} us, p99 {_q(hops[:, 1:], 99)} us")
    print(f"into the first stage (wakes a thread): p50 {_q(hops[:, 0], 50)} us, p99 {_q(hops[:, 0], 99)} us")
    print(f"all stages full: {full:.1f} us for each item and stage, {ends.count(End.OUT)} of 4000 out")


def worker(given: argparse.Namespace) -> None:
    """Compare a worker process with the same session in this one; then let it hang."""
    shapes = _shapes(_bare(given.zoo / DSCNN))
    runtime = Runtime.open(given.zoo / DSCNN, shapes=shapes)
    feeds = _feeds(runtime)
    with Worker(given.zoo / DSCNN, shapes=shapes) as there:
        there.await_ready(60)
        calls = (
            lambda: runtime.infer(feeds),
            lambda: there.run(feeds, deadline_ns=time.monotonic_ns() + 10**9),
        )
        taken = _in_turns(calls, 3000)
        print(f"worker process, dscnn-kws: p50 {_q(taken[1] - taken[0], 50)} us more than in this process")
        pages = int(Path(f"/proc/{there.pid}/statm").read_text(encoding="ascii").split()[1])
        print(f"its resident memory: {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.1f} MiB")
        after_ms, back_ms = [], []
        for _ in range(10):
            there.await_ready(60)
            os.kill(there.pid or 0, signal.SIGSTOP)  # hangs: neither answers nor sees that it shall stop
            deadline_ns = time.monotonic_ns() + 20_000_000
            with contextlib.suppress(WorkerError):
                there.run(feeds, deadline_ns=deadline_ns)
            after_ms.append((time.monotonic_ns() - deadline_ns) / 1e6)
            there.await_ready(60)
            there.run(feeds, deadline_ns=time.monotonic_ns() + 10**10)
            back_ms.append((time.monotonic_ns() - deadline_ns) / 1e6)
        print(
            f"a hang: ended {np.median(after_ms):.0f} ms after its deadline, {max(after_ms):.0f} at most; the next "
            f"answer after {np.median(back_ms):.0f} ms ({there.counts().hangs} of 10 counted)"
        )


def imports(_given: argparse.Namespace) -> None:
    """Compare fresh processes that import the device and what it is built on."""
    code = ("import onnxruntime, numpy", "import edgewise.device", "pass")
    taken = _in_turns([partial(_python, each) for each in code], 25, warm_up=2) / 1e3
    for index, words in ((None, "whole processes"), (2, "without the interpreter's start")):
        start = 0.0 if index is None else np.median(taken[index])
        ratio = (taken[1] - start) / (taken[0] - start)
        low, high = _median_interval(ratio)
        print(
            f"import edgewise.device: {np.median(ratio):.2f} times onnxruntime and numpy "
            f"(95 %: {low:.2f} to {high:.2f}), {words}; "
            f"medians {np.median(taken[1]) - start:.0f} and {np.median(taken[0]) - start:.0f} ms"
        )


def memory(given: argparse.Namespace) -> None:
    """Compare the resident memory of processes that hold DS-CNN and have run it once."""
    path = str(given.zoo / DSCNN)
    shapes = _shapes(_bare(given.zoo / DSCNN))
    opened = (
        f"from pathlib import Path; from edgewise.device import Runtime\n"
        f"r = Runtime.open(Path({path!r}), shapes={shapes!r}); r.infer(r.session.inputs)\n"
    )
    codes = {
        "a bare session": (
            "import numpy, onnxruntime\n"
            "o = onnxruntime.SessionOptions(); o.intra_op_num_threads = 1; o.inter_op_num_threads = 1\n"
            f"s = onnxruntime.InferenceSession({path!r}, o, providers=['CPUExecutionProvider'])\n"
            f"s.run(None, {{n: numpy.zeros(d, 'float32') for n, d in {shapes!r}.items()}})\n"
        ),
        "a runtime": opened,
        "a runtime, and the agent's code loaded": opened + "import edgewise.device.agent.running\n",
    }
    report = (
        "import gc; gc.collect(); print(next(int(l.split()[1]) for l in open('/proc/self/status') if 'VmRSS' in l))"
    )
    taken = {name: [int(_python(code + report)) / 1024 for _ in range(5)] for name, code in codes.items()}
    bare = float(np.median(taken["a bare session"]))
    for name, values in taken.items():
        print(f"memory of {name}: {np.median(values):.1f} MiB, {np.median(values) - bare:+.1f} over a bare session")


def slope(given: argparse.Namespace) -> None:
    """Watch the resident memory of a runtime and of a bare session over many inferences, at the same time."""
    model, count = given.zoo / DSCNN, given.inferences
    script = str(Path(__file__).with_name("growth.py"))
    children = {
        which: subprocess.Popen(
            [sys.executable, script, str(model), which, str(given.warm_up), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for which in ("bare", "runtime")
    }
    for child in children.values():
        child.stdout.readline()  # type: ignore[union-attr]  # a pipe
    for child in children.values():
        child.stdin.write("begin\n")  # type: ignore[union-attr]  # a pipe
    kib = {which: np.array(json.loads(child.stdout.readline())) for which, child in children.items()}  # type: ignore[union-attr]  # a pipe
    at = (np.arange(len(kib["bare"])) + 1) / len(kib["bare"]) * count / 1e6
    print(f"memory over {count} inferences after {given.warm_up} of warm-up, dscnn-kws:")
    for words, values in (("bare session", kib["bare"]), ("runtime", kib["runtime"])):
        _print_slope(words, at, values)
    _print_slope("difference", at, kib["runtime"] - kib["bare"])


def _print_slope(words: str, at: Doubles, kib: NDArray[np.int64]) -> None:
    """Print the slope of KiB over millions of inferences, with its interval."""
    interval = slope_interval(at, kib, generator=np.random.default_rng(0))
    print(
        f"  {words}: {theil_sen(at, kib):+.1f} KiB a million (95 %: {interval.low:+.1f} to {interval.high:+.1f}, "
        f"{'holds' if interval.low <= 0 <= interval.high else 'does not hold'} zero), "
        f"from {kib[0]} to {kib[-1]} KiB, {kib.min()} at least, {kib.max()} at most"
    )


def _bare(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), session_options(threads=1), providers=["CPUExecutionProvider"])


def _shapes(session: Any) -> dict[str, tuple[int, ...]]:
    return {each.name: tuple(n if isinstance(n, int) else 1 for n in each.shape) for each in session.get_inputs()}


def _feeds(runtime: Runtime) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(each.shape).astype(each.dtype) for name, each in runtime.session.inputs.items()
    }


def _in_turns(calls: Sequence[Callable[[], object]], rounds: int, *, warm_up: int = WARM_UP) -> Doubles:
    """Return microseconds [calls, rounds]."""
    taken = np.zeros((len(calls), rounds))
    for turn in range(-warm_up, rounds):
        for step in range(len(calls)):
            which = (turn + step) % len(calls)
            begin = time.perf_counter_ns()
            calls[which]()
            taken[which, max(turn, 0)] = (time.perf_counter_ns() - begin) / 1000
    return taken


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _median_interval(values: Doubles) -> tuple[float, float]:
    draws = np.random.default_rng(0).choice(values, (2000, values.size))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _q(values: Doubles, q: float) -> str:
    return f"{np.percentile(values, q):.1f}"


if __name__ == "__main__":
    main()
