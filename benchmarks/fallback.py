"""What each fallback adds to a plain `Runtime.infer`, in one process, in random order.

    python benchmarks/fallback.py MODEL [--rounds 3000]

Open sizes are taken as 1. `deadline` is watched and never due; `short deadlines` wake the watchdog
for each inference, after a pause, to be held against `plain after a pause`;
`miss` hashes a new input and keeps its answer; `hit` gives a kept one. Prints microseconds over the plain call.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from edgewise.contracts.verification import VariantCalibration
from edgewise.device import Runtime
from edgewise.device.confidence import Believer
from edgewise.device.fallback.options import FallbackOptions
from edgewise.runtimes.onnxruntime_ import session_options

WARM_UP = 50
PAUSE_S = 0.003
"""Between two inferences with short deadlines: by then the watchdog has nothing to watch any more."""


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3000)
    given = parser.parse_args()
    bare = onnxruntime.InferenceSession(
        str(given.model), session_options(threads=1), providers=["CPUExecutionProvider"]
    )
    shapes = {each.name: tuple(n if isinstance(n, int) else 1 for n in each.shape) for each in bare.get_inputs()}
    plain = Runtime.open(given.model, shapes=shapes)
    caching = Runtime.open(given.model, shapes=shapes, fallback=FallbackOptions(cache_bytes=1 << 20))
    generator = np.random.default_rng(0)
    feeds = {
        name: generator.standard_normal(each.shape).astype(each.dtype) for name, each in plain.session.inputs.items()
    }
    name = next(iter(feeds))
    fresh = {each: array.copy() for each, array in feeds.items()}
    outputs = dict(plain.infer(feeds).outputs)
    believer = Believer(
        VariantCalibration(temperature=1.1, conformal={"0.9": 0.3}), output=next(iter(outputs)), stored=False
    )

    def miss() -> None:
        fresh[name].reshape(-1)[0] += 1
        caching.infer(fresh)

    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: plain.infer(feeds),
        "deadline": lambda: plain.infer(feeds, deadline_ms=1000.0),
        "plain after a pause": lambda: plain.infer(feeds),
        "short deadlines": lambda: plain.infer(feeds, deadline_ms=2.0),
        "miss": miss,
        "hit": lambda: caching.infer(feeds),
        "confidence alone": lambda: believer.confidence(outputs, coverage=0.9),
    }
    taken = {each: np.zeros(given.rounds) for each in calls}
    order = list(calls)
    for turn in range(-WARM_UP, given.rounds):
        generator.shuffle(order)
        for each in order:
            if each in {"plain after a pause", "short deadlines"}:
                time.sleep(PAUSE_S)
            begin = time.perf_counter_ns()
            calls[each]()
            taken[each][max(turn, 0)] = (time.perf_counter_ns() - begin) / 1000
    base = np.percentile(taken["plain"], (50, 99))
    print(f"plain: p50 {base[0]:.1f} us, p99 {base[1]:.1f} us, input {sum(a.nbytes for a in feeds.values())} bytes")
    for each in list(calls)[1:]:
        found = np.percentile(taken[each], (50, 99))
        if each == "confidence alone":
            print(f"{each}: p50 {found[0]:.1f} us, p99 {found[1]:.1f} us")
        else:
            print(f"{each}: p50 {found[0] - base[0]:+.1f} us, p99 {found[1] - base[1]:+.1f} us")


if __name__ == "__main__":
    main()
