"""Peak memory of `edgewise optimize` by the number of calibration samples, as a ratio of one run.

    python benchmarks/memory.py [--task T] [--samples 100 1000] [--effort E]

The task's own samples (see zoo.py; `run.py --tasks T --efforts` fills the cache) are shifted, mirrored
and dimmed until there are enough: what counts is their number and size.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from ours import JUDGED, TASK_ARGUMENTS
from runs import HERE, metered
from score import kind

MOST_SHIFT = 12


def pool(source: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` samples [count, channels, height, width] made of the source's."""
    made = np.empty((count, *source.shape[1:]), source.dtype)
    for at in range(count):
        sample, again = source[at % len(source)], at // len(source)
        if again:
            sample = sample[..., ::-1] if again % 2 else sample
            shift = generator.integers(-MOST_SHIFT, MOST_SHIFT + 1, 2)
            sample = np.roll(sample, tuple(shift), (-2, -1)) * generator.uniform(0.8, 1.0)
        made[at] = sample
    return made


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--task", default="mobilenetv2-imagenet")
    parser.add_argument("--samples", nargs="+", type=int, default=(100, 1000))
    parser.add_argument("--effort", default="default")
    parser.add_argument("--edgewise", type=Path, default=Path(sys.executable).parent / "edgewise")
    args = parser.parse_args()
    cache = HERE / ".cache" / args.task
    source = np.load(cache / "calibrate.npz", allow_pickle=False)["x"]
    peaks = []
    for count in args.samples:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data"
            data.mkdir()
            np.savez(data / "calibrate.npz", x=pool(source, count, np.random.default_rng(0)))
            shutil.copy(cache / "test.npz", data / "test.npz")
            command = [args.edgewise, "optimize", cache / "model.onnx", "--data", data, "--effort", args.effort]
            options = ["--output", folder / "run", "--json", *JUDGED, *TASK_ARGUMENTS[kind(args.task)]]
            meter = metered([*command, *options], folder)
        peaks.append(meter["peak_rss_mib"])
        print(f"{count:6d} samples: {meter['peak_rss_mib']:.0f} MiB largest process, ", end="")
        print(f"{meter['peak_tree_mib']:.0f} MiB all, {meter['wall_seconds']:.1f} s, exit {meter['exit_code']}")
    print(f"ratio of the last to the first, largest process: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
