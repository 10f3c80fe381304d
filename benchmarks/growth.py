"""The resident memory of one process over many inferences: `device.py --only slope` starts it twice.

    python benchmarks/growth.py MODEL bare|runtime WARM_UP COUNT

Says `ready`, waits for a line, infers, and prints the resident KiB at `POINTS` times after the warm-up as JSON. Its own
memory is constant: what it reads goes into arrays that are as long at the begin as at the end.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from edgewise.device import Runtime
from edgewise.runtimes.onnxruntime_ import session_options

POINTS = 200


def main(model: Path, which: str, warm_up: int, count: int) -> None:
    """Infer `warm_up + count` times."""
    infer = bare(model) if which == "bare" else runtime(model)
    kib = np.zeros(POINTS, np.int64)
    kib += 1  # all of its pages are there
    page_kib = os.sysconf("SC_PAGE_SIZE") // 1024
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    infer()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(warm_up):
        infer()
    for point in range(POINTS):
        for _ in range(count // POINTS):
            infer()
        kib[point] = int(os.pread(statm, 128, 0).split()[1]) * page_kib
    print(json.dumps(kib.tolist()), flush=True)


def bare(model: Path) -> Callable[[], object]:
    """Return one run of a session with the options that the device gives it."""
    session = onnxruntime.InferenceSession(str(model), session_options(threads=1), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {
        each.name: random.standard_normal([n if isinstance(n, int) else 1 for n in each.shape]).astype(np.float32)
        for each in session.get_inputs()
    }
    return lambda: session.run(None, feeds)


def runtime(model: Path) -> Callable[[], object]:
    """Return one inference of a runtime, with a deadline that it keeps."""
    session = onnxruntime.InferenceSession(str(model), session_options(threads=1), providers=["CPUExecutionProvider"])
    shapes = {each.name: tuple(n if isinstance(n, int) else 1 for n in each.shape) for each in session.get_inputs()}
    del session
    ours, random = Runtime.open(model, shapes=shapes), np.random.default_rng(0)
    feeds = {name: random.standard_normal(each.shape).astype(each.dtype) for name, each in ours.session.inputs.items()}
    return lambda: ours.infer(feeds, deadline_ms=1000.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
