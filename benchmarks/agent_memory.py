"""Memory of an idle agent beside that of a bare process that loaded the same session.

The agent is the real one: enrolled, updated to a bundle from a repository, restarted, idle, its local HTTP and its
reporting on. The bare process imports onnxruntime and numpy, loads the same graph with the same options, runs it once.

    python benchmarks/agent_memory.py
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

import checkout  # noqa: F401  (makes `tests` importable)
from tests.conformance.fleet.agents import awaited, running
from tests.faults.device.agents import enrol, publish
from tests.faults.device.bundles import IN
from tests.faults.trust.fleet import Fleet, served

LIMIT_MIB = 40.0
SETTLED_S = 4.0
BARE = f"""
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {{"x": numpy.zeros((1, {IN}), numpy.float32)}})
print(flush=True)
sys.stdin.readline()
"""


def main() -> int:
    """Measure and print; 1 where the agent takes more than it may."""
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        fleet = Fleet(Path(name))
        with served(fleet.store) as url:
            fleet.direct(publish(fleet, "1.2.0"))
            folder = enrol(fleet, url, poll_interval_s=2)
            with running(folder):
                awaited(folder, lambda each: each.get("release") == "1.2.0")
            with running(folder) as process:
                awaited(folder, lambda each: bool(each.get("running")) and each.get("release") == "1.2.0")
                time.sleep(SETTLED_S)
                agent_mib = rss_mib(process.pid)
        (model,) = (folder / "slots").rglob("model.onnx")
        with contextlib.closing(Bare(model)) as bare:
            bare_mib = bare.rss_mib
    more = agent_mib - bare_mib
    print(f"agent {agent_mib:.1f} MiB, bare session {bare_mib:.1f} MiB: {more:.1f} MiB more, at most {LIMIT_MIB:g}")
    return 0 if more <= LIMIT_MIB else 1


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
