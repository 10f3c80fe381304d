"""Times all models of a task against fp32 in one process, in turns, and prints one JSON line.

    python speed.py DATA [--variant NAME=PATH ...] [--rounds N]      (in the judge's environment)

A shared machine's clock drifts by more than the differences of interest, so absolute times
are worth little and ratios of one round are worth much. In every round each model runs the
same few test inputs, batch 1, in an order drawn anew (who always follows the same large model always
finds the caches that it left); the speed of a model
over another is the median over rounds of (the other's time / its time), with a bootstrap
interval of that median.
One thread, no spinning, all graph optimisations: for fp32, too. All models are loaded anew after a part of the rounds,
in another order: where a session's weights happen to lie in memory makes up to a tenth of its speed.

Time here is the calling thread's processor time, which on an idle machine is the wall time of
a call with one thread, and which other programs on a busy one do not stretch by taking the
core away. The same ratio by the wall clock stands beside it (`wall`); the latencies are wall.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from samples import Feed, samples

SLOT_SECONDS = 0.03  # how long one model runs in one round, at fp32's pace
BOOTSTRAP = 2000
REFERENCE = "fp32"
LOADS = 4  # parts of the rounds, each with sessions of its own
WORDS = 300  # how much of an error message is kept


def session(path: Path) -> ort.InferenceSession:
    """Open the session whose speed counts."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def loaded(paths: dict[str, Path], part: int) -> dict[str, ort.InferenceSession]:
    """Load all models, each part beginning with another one."""
    names = list(paths)
    turn = part * len(names) // LOADS
    return {name: session(paths[name]) for name in names[turn:] + names[:turn]}


def slot(model: ort.InferenceSession, feeds: list[Feed]) -> tuple[float, float]:
    """Time `feeds` after one untimed call that refills the caches: ms per inference, processor and wall."""
    model.run(None, feeds[-1])
    start = time.thread_time(), time.perf_counter()
    for feed in feeds:
        model.run(None, feed)
    end = time.thread_time(), time.perf_counter()
    return (end[0] - start[0]) * 1e3 / len(feeds), (end[1] - start[1]) * 1e3 / len(feeds)


def take_turns(
    models: dict[str, ort.InferenceSession], feeds: list[Feed], rounds: int, draw: np.random.Generator
) -> dict[str, np.ndarray]:
    """Time every model: milliseconds per inference, [rounds, (processor, wall)]."""
    slot(models[REFERENCE], feeds[:5])
    pace = slot(models[REFERENCE], feeds[:20])[0] / 1e3
    calls = int(np.clip(SLOT_SECONDS / pace, 1, len(feeds)))
    names, times = list(models), {name: np.empty((rounds, 2)) for name in models}
    for model in models.values():
        slot(model, feeds[:calls])
    for i in range(rounds):
        inputs = [feeds[(i * calls + j) % len(feeds)] for j in range(calls)]
        for name in (names[at] for at in draw.permutation(len(names))):
            times[name][i] = slot(models[name], inputs)
    return times


def interval(ratios: np.ndarray) -> list[float]:
    """Bootstrap the 95 % interval of the median."""
    draws = np.random.default_rng(0).choice(ratios, (BOOTSTRAP, len(ratios)))
    return [round(float(q), 4) for q in np.quantile(np.median(draws, axis=1), [0.025, 0.975])]


def compare(times: dict[str, np.ndarray], base: str, name: str) -> dict[str, object]:
    """Say how much faster `name` is than `base`."""
    ratios = times[base] / times[name]
    median, wall = np.median(ratios, axis=0)
    return {"median": round(float(median), 4), "interval": interval(ratios[:, 0]), "wall": round(float(wall), 4)}


def main() -> None:
    """Load, time, report; a model that does not load or run is reported with the reason."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--inputs", type=int, default=400, help="how many test inputs to keep in memory")
    args = parser.parse_args()
    paths = {REFERENCE: args.data / "model.onnx"}
    names = [spec.name for spec in session(paths[REFERENCE]).get_inputs()]
    feeds = samples(args.data / "test.npz", names)[: args.inputs]
    failures = dict[str, str]()
    for variant in args.variant:
        name, path = variant.split("=", 1)
        try:
            session(Path(path)).run(None, feeds[0])
            paths[name] = Path(path)
        except Exception as error:  # noqa: BLE001 (whatever a peer's model raises is its result)
            failures[name] = f"could not be run: {error}"[:WORDS]
    draw, rounds = np.random.default_rng(0), max(args.rounds // LOADS, 1)
    parts = [take_turns(loaded(paths, part), feeds, rounds, draw) for part in range(LOADS)]
    times = {name: np.concatenate([part[name] for part in parts]) for name in paths}
    result = {
        "rounds": args.rounds,
        "load_1min": round(os.getloadavg()[0], 2),
        # speed[a][b]: how many times faster a is than b.
        "speed": {name: {base: compare(times, base, name) for base in paths if base != name} for name in paths},
        "latency_p50_ms": {name: round(float(np.median(t[:, 1])), 5) for name, t in times.items()},
        "failures": failures,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
