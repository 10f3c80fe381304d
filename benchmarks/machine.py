"""What a result has to say about where it was measured, and with what."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from runs import HERE

# The instructions that decide how fast int8 can be against fp32.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve")


def pins() -> dict[str, dict[str, str]]:
    """Read the versions per environment, from the pinned lists."""
    pin = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    return {path.stem: dict(pin.findall(path.read_text())) for path in sorted((HERE / "requirements").glob("*.txt"))}


def commit() -> str | None:
    """Return the commit of this working tree, marked when files differ from it."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def describe() -> dict[str, Any]:
    """Say processor, memory, load now, versions."""
    info = Path("/proc/cpuinfo").read_text()
    field = {key: value for key, value in re.findall(r"^([\w ]+?)\s*: (.*)$", info, re.MULTILINE)}  # noqa: C416
    known = set((field.get("flags") or field.get("Features") or "").split())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": field.get("model name", platform.processor()),
        "cpu_family_model_stepping": [field.get(key) for key in ("cpu family", "model", "stepping")],
        "flags": [flag for flag in FLAGS if flag in known],
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "load_1min_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "edgewise_commit": commit(),
        "pinned": pins(),
    }
