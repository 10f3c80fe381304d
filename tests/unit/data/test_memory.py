"""Memory must not grow with the number of samples."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgewise.forge.data.npz import open_npz_dataset
from edgewise.runtimes.base import TensorSpec

SPEC = TensorSpec("x", "float32", (None, 3, 64, 64))
SAMPLE = np.repeat(np.arange(3 * 64, dtype=np.float32), 64).reshape(3, 64, 64)

WALK = """
import resource, sys
from pathlib import Path
from edgewise.forge.data.npz import open_npz_dataset
from edgewise.runtimes.base import TensorSpec
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = open_npz_dataset(Path(sys.argv[1]), inputs=(TensorSpec("x", "float32", (None, 3, 64, 64)),))
total = sum(float(dataset[i].feeds["x"].sum()) for i in range(len(dataset)))
dataset.digest(), [dataset.fingerprint(i) for i in range(len(dataset))]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def written(folder: Path, samples: int, *, packed: bool) -> Path:
    path = folder / f"{samples}.npz"
    rows = SAMPLE + np.arange(samples, dtype=np.float32).reshape(-1, 1, 1, 1)
    (np.savez_compressed if packed else np.savez)(path, x=rows, y=np.arange(samples))
    return path


def walked(path: Path) -> int:
    """Return the peak of traced bytes while a dataset is opened and read through."""
    tracemalloc.start()
    dataset = open_npz_dataset(path, inputs=(SPEC,))
    for index in range(len(dataset)):
        dataset[index]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    dataset.close()
    return peak


@pytest.mark.parametrize("packed", [False, True])
def test_traced_memory_is_that_of_a_tenth_of_the_samples(tmp_path: Path, *, packed: bool) -> None:
    few, many = (walked(written(tmp_path, samples, packed=packed)) for samples in (100, 1000))
    assert many < 1.2 * few + 100_000
    assert many < 8 * 2**20  # the samples are 48 MiB


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_the_process_does_not_grow(tmp_path: Path) -> None:
    path = written(tmp_path, 1000, packed=False)
    done = subprocess.run([sys.executable, "-c", WALK, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 1024  # KiB; the samples are 48 MiB
