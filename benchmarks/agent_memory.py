"""Memory of an idle agent beside that of a bare process that loaded the same session.

The agent is the real one: enrolled, updated to a bundle from a repository, restarted, idle, its local HTTP and its
reporting on. Its bundle is one that `edgewise optimize` and `edgewise seal` made of the zoo's DS-CNN. The bare process
imports onnxruntime and numpy, loads the chosen variant with the same options, runs it once.

    python benchmarks/agent_memory.py [--model DIR]      # DIR: model.onnx, calibrate.npz, test.npz
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

import checkout  # noqa: F401  (makes `tests` importable)
from tests.conformance.fleet.agents import awaited, running
from tests.faults.device.agents import enrol, publish
from tests.faults.trust.fleet import PRODUCT, Fleet, served

LIMIT_MIB = 40e6 / (1 << 20)
SETTLED_S = 4.0
VERSION = "1.0.0"
EDGEWISE = (sys.executable, "-c", "from edgewise.cli import start; start()")
BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
kinds = {"tensor(float)": "float32", "tensor(int64)": "int64"}
shape = lambda each: [size if isinstance(size, int) else 1 for size in each.shape]
session.run(None, {each.name: numpy.zeros(shape(each), kinds[each.type]) for each in session.get_inputs()})
print(flush=True)
sys.stdin.readline()
"""


def main() -> int:
    """Measure and print; 1 where the agent takes more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo = Path(os.environ.get("EDGEWISE_ZOO") or Path(__file__).parents[2] / "shared" / "zoo")
    parser.add_argument("--model", type=Path, default=zoo / "dscnn-kws", metavar="DIR")
    given = parser.parse_args()
    if not (given.model / "model.onnx").is_file():
        parser.error(f"{given.model} holds no model.onnx: give --model, or EDGEWISE_ZOO")
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        fleet = Fleet(Path(name))
        bundle = sealed(given.model, Path(name))
        with served(fleet.store) as url:
            fleet.direct(publish(fleet, VERSION, bundle))
            folder = enrol(fleet, url, poll_interval_s=2)
            with running(folder):
                awaited(folder, lambda each: each.get("release") == VERSION)
            with running(folder) as process:
                found = awaited(folder, lambda each: bool(each.get("running")) and each.get("release") == VERSION)
                time.sleep(SETTLED_S)
                agent_mib = rss_mib(process.pid)
        files = folder / "slots" / found["slot"] / "files"
        (model,) = (
            files / each["model"]
            for each in json.loads((files / "manifest.json").read_bytes())["variants"]
            if each["name"] == found["variant"]
        )
        with contextlib.closing(Bare(model)) as bare:
            bare_mib = bare.rss_mib
    more = agent_mib - bare_mib
    print(f"{given.model.name}, {found['variant']}: agent {agent_mib:.1f} MiB, bare session {bare_mib:.1f} MiB")
    print(f"{more:.1f} MiB more, at most {LIMIT_MIB:.1f} (40 MB): {'holds' if more <= LIMIT_MIB else 'DOES NOT HOLD'}")
    return 0 if more <= LIMIT_MIB else 1


def sealed(model: Path, folder: Path) -> bytes:
    """Return a bundle of a model, as the product makes it."""
    bundle, key = folder / f"{PRODUCT}-{VERSION}.edgewise", folder / "seal.pem"
    options = ("--effort", "fast", "--runtime", "onnxruntime", "--threads", "1")
    for command in (
        ("optimize", model / "model.onnx", "--data", model, "--output", folder / "run", *options),
        ("keys", "generate", key, "--unencrypted"),
        ("seal", folder / "run", "-o", bundle, "--key", key),
    ):
        subprocess.run([*EDGEWISE, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return bundle.read_bytes()


class Bare:
    """A process that loaded the session and nothing else."""

    def __init__(self, model: Path) -> None:
        """Wait until it has run once."""
        command = [sys.executable, "-c", BARE, str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._process.stdout is not None:
            self._process.stdout.readline()
        self.rss_mib = rss_mib(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def rss_mib(pid: int) -> float:
    """Return the resident set of a process."""
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


if __name__ == "__main__":
    sys.exit(main())
