"""The machine and the software that a run was measured with."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from edgewise.contracts.evidence import Environment
from edgewise.contracts.units import mib
from edgewise.runtimes.base import installed_version

_DISTRIBUTIONS = ("edgewise", "numpy", "onnx", "onnxruntime", "openvino", "torch")
_CPUINFO = Path("/proc/cpuinfo")


def environment(*, threads: int, seed: int) -> Environment:
    """Describe this machine as it is now; `load_average` is that of the last minute."""
    return Environment(
        machine=platform.machine(),
        processor=processor(),
        cores=cores(),
        threads=threads,
        memory_mib=round(mib(psutil.virtual_memory().total), 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions(),
        load_average=_load_average(),
        seed=seed,
    )


def versions() -> dict[str, str]:
    """Return the versions of the libraries that figures depend on, of those that are installed."""
    found = {name: installed_version(name) for name in _DISTRIBUTIONS}
    return {name: version for name, version in found.items() if version is not None}


def cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name as the system gives it."""
    return _cpuinfo("model name") or _cpuinfo("Model") or platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """Return the instruction-set flags the system lists (Linux: x86 `flags`, Arm `Features`)."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
