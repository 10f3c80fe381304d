"""Measure a machine: arithmetic in fp32 and int8, memory, what a border costs, and which signs are faster.

All products are branches of one model, so that one profiled run times them side by side and the
machine's mood divides out. What is measured is kept in the user's cache folder, by machine and
library versions.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx

from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Signs
from edgewise.contracts.target import Probe
from edgewise.errors import TargetError
from edgewise.forge.measure.environment import cores, processor, processor_flags, versions
from edgewise.forge.measure.probe_models import BORDER_SIZES, BORDERS, PRODUCTS, border_model, product_model
from edgewise.runtimes.base import Array, KernelTime, Runtime
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

_FORMAT = 1
"""Raised when what is measured, or how, changes: cached results are then measured again."""

_ROUNDS = 20
_COPY_BYTES = 64 << 20
_COPIES = 6
_MARGIN = 1.05
"""How much faster s8 x s8 must be before it is chosen: noise must not change a recipe."""


class Probed(Value):
    """What is cached: the figures and the signs that they speak for."""

    probe: Probe
    signs: Signs


def probed(*, threads: int, fresh: bool = False, cache: Path | None = None) -> Probed:
    """Return this machine's figures with ONNX Runtime on so many threads.

    Measures for less than a second or two the first time, then reads the cache unless `fresh`.
    """
    path = (cache or cache_folder()) / f"{fingerprint(threads=threads)}.json"
    found = None if fresh else _read(path)
    if found is None:
        found = measure(OnnxRuntime(), threads=threads)
        _write(path, found)
    return found


def cache_folder() -> Path:
    """Return where measured targets are kept (`$XDG_CACHE_HOME/edgewise/targets`)."""
    # The XDG specification: a relative path in the variable is to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "edgewise" / "targets"


def fingerprint(*, threads: int) -> str:
    """Return a digest of all that a probe's figures depend on."""
    facts = (_FORMAT, processor(), sorted(processor_flags()), cores(), threads, sorted(versions().items()))
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:24]


def measure(executor: Runtime, *, threads: int) -> Probed:
    """Return the figures of the machine that `executor` profiles on; the memory's speed is always this machine's."""
    model, feeds = product_model()
    times = _products(executor.profile(_bytes(model), (feeds,), threads=threads, rounds=_ROUNDS))
    macs = sum(PRODUCTS.values())
    fp32, u8s8, s8s8 = (sum(times[f"{kind}_{product}"] for product in PRODUCTS) for kind in ("fp32", "u8s8", "s8s8"))
    signs = Signs.S8S8 if s8s8 * _MARGIN < u8s8 else Signs.U8S8
    quantize, dequantize = _borders(executor, threads=threads)
    return Probed(
        probe=Probe(
            # 10**9 multiply-adds a second are 10**3 a microsecond.
            fp32_gmacs=macs / fp32 / 1e3,
            int8_gmacs=macs / min(u8s8, s8s8) / 1e3,
            memory_gib_per_s=_memory_gib_per_s(),
            quantize_call_us=quantize[0],
            quantize_element_ns=quantize[1],
            dequantize_call_us=dequantize[0],
            dequantize_element_ns=dequantize[1],
        ),
        signs=signs,
    )


def _products(kernels: tuple[KernelTime, ...]) -> dict[str, float]:
    """Return the time of each product's kernel in microseconds, by the tensor it computes."""
    wanted = {f"{kind}_{product}" for kind in ("fp32", "u8s8", "s8s8") for product in PRODUCTS}
    found: dict[str, float] = {}
    for kernel in kernels:
        # A runtime may put more than one kernel behind a tensor (a layout reorder): the product is the longest.
        for name in wanted.intersection(kernel.origins):
            found[name] = max(found.get(name, 0.0), kernel.time_us)
    if missing := sorted(wanted - found.keys()):
        raise TargetError(f"the runtime's profile does not tell the time of {', '.join(missing)}")
    return found


def _borders(executor: Runtime, *, threads: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return call (us) and element (ns) costs of QuantizeLinear and of DequantizeLinear."""
    times: dict[str, list[float]] = {"QuantizeLinear": [], "DequantizeLinear": []}
    for size in BORDER_SIZES:
        # One model a size: what the profiler adds is told apart only where kernels are alike.
        model, feeds = border_model(size)
        kernels = executor.profile(_bytes(model), (feeds,), threads=threads, rounds=_ROUNDS)
        for kind, found in times.items():
            found.append(_typical(kernels, kind))
    quantize, dequantize = (fit_line(np.array(BORDER_SIZES), np.array(found)) for found in times.values())
    return quantize, dequantize


def _typical(kernels: tuple[KernelTime, ...], kind: str) -> float:
    found = [kernel.time_us for kernel in kernels if kernel.kind == kind]
    if len(found) != BORDERS:
        raise TargetError(f"the runtime ran {len(found)} of the {BORDERS} {kind} kernels of the probe")
    return float(np.median(found))


def fit_line(elements: Array, times_us: Array) -> tuple[float, float]:
    """Return the call cost in microseconds and the element cost in nanoseconds, neither below 0.

    Least squares of `time = call + element * n`, each residual over its time: all sizes count alike,
    where plain squares would fit the call cost to the noise of the largest.
    """
    columns = np.stack([np.ones(len(elements)), elements], axis=1) / times_us[:, None]
    call, element = np.linalg.lstsq(columns, np.ones(len(elements)), rcond=None)[0]
    return max(0.0, float(call)), max(0.0, float(element) * 1e3)


def _memory_gib_per_s() -> float:
    """Return the bytes that one core reads and writes in a second, copying what no inner cache holds."""
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    shortest = np.inf
    for _ in range(_COPIES):
        begin = time.perf_counter()
        np.copyto(target, source)
        shortest = min(shortest, time.perf_counter() - begin)
    return 2 * _COPY_BYTES / shortest / 2**30


def _bytes(model: onnx.ModelProto) -> bytes:
    serialised: bytes = model.SerializeToString()
    return serialised


def _read(path: Path) -> Probed | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Probed)
    except (OSError, msgspec.DecodeError):
        # Never written, or by an interrupted process, or by another version: measured again.
        return None


def _write(path: Path, found: Probed) -> None:
    """Keep the figures; a folder that cannot be written only means to measure again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(msgspec.json.encode(found))
        Path(file.name).replace(path)
    except OSError:
        return
