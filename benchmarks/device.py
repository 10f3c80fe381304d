"""What `edgewise.device.Runtime` adds to a bare `InferenceSession.run` with the same options.

    python benchmarks/device.py MODEL [--rounds 5000]

Runs alternate in one process, each of a pair in turn first. Open sizes are taken as 1.
Prints microseconds and the ratio.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime

from edgewise.device import Runtime
from edgewise.runtimes.onnxruntime_ import session_options

WARM_UP = 50


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5000)
    given = parser.parse_args()
    bare = onnxruntime.InferenceSession(
        str(given.model), session_options(threads=1), providers=["CPUExecutionProvider"]
    )
    shapes = {each.name: tuple(n if isinstance(n, int) else 1 for n in each.shape) for each in bare.get_inputs()}
    runtime = Runtime.open(given.model, shapes=shapes)
    random = np.random.default_rng(0)
    feeds = {
        name: random.standard_normal(each.shape).astype(each.dtype) for name, each in runtime.session.inputs.items()
    }
    calls = (lambda: bare.run(None, feeds), lambda: runtime.infer(feeds, deadline_ms=1000.0))
    taken = np.zeros((2, given.rounds))
    for turn in range(-WARM_UP, given.rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            begin = time.perf_counter_ns()
            calls[which]()
            taken[which, max(turn, 0)] = (time.perf_counter_ns() - begin) / 1000
    for q in (50, 99):
        plain, ours = np.percentile(taken, q, axis=1)
        print(f"p{q}: bare {plain:.1f} us, ours {ours:.1f} us, overhead {ours - plain:+.1f} us ({ours / plain:.3f})")


if __name__ == "__main__":
    main()
