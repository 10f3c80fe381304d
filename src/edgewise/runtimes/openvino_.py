"""OpenVINO on the CPU: the second runtime, an extra (`pip install 'edgewise[openvino]'`)."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.errors import ExecutionError
from edgewise.runtimes.base import Array, KernelTime, TensorSpec, require
from edgewise.runtimes.node_names import Origins, read_nodes

# OpenVINO throws C++ exceptions as RuntimeError, and wrong Python values as the others.
_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, MemoryError)

_Key = tuple[str, str, int]
"""Name without its number, kind, and which of that name: OpenVINO numbers what it inserts anew in
every compilation."""

_NUMBER = re.compile(r"_\d+")

_WARM_UP = 2
_COPIES = 3
_MAX_MESSAGE = 300
_MAX_SHIFT_US = 4.0
_SHORTEST_US = 0.1

_INTEGER_PRECISIONS = frozenset({"u8", "i8", "u4", "i4"})
_COMPUTING = frozenset(
    {"Convolution", "Deconvolution", "Eltwise", "FullyConnected", "LSTMCell", "MatMul", "Pooling", "RNNSeq"}
)
"""Layer types that compute: a Reorder of bytes is not what makes a model quantized."""


class OpenVinoSession:
    """A variant compiled by OpenVINO; create it with `OpenVino.load`."""

    def __init__(self, compiled: Any) -> None:
        """Wrap a compiled model; it runs in one request of its own."""
        self.native = compiled
        self._request = compiled.create_infer_request()
        self._inputs = tuple(_spec(each) for each in compiled.inputs)
        self._outputs = tuple(_spec(each) for each in compiled.outputs)
        # OpenVINO may know a tensor by several names.
        self._aliases = [
            (spec.name, frozenset(each.names)) for spec, each in zip(self._inputs, compiled.inputs, strict=True)
        ]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs in graph order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs in graph order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Execute once; returns the outputs in graph order.

        Raises ExecutionError where an input is missing, unknown, or of the wrong type or shape.
        """
        values = self._by_position(feeds)
        try:
            # Without sharing every input is copied, which the first runtime does not do either.
            results = self._request.infer(values, share_inputs=True)
            return tuple(np.asarray(results[index]) for index in range(len(self._outputs)))
        except _REFUSALS as error:
            raise ExecutionError(f"OpenVINO could not run the model: {reason(error)}") from error

    def _by_position(self, feeds: Mapping[str, Array]) -> dict[int, Array]:
        values: dict[int, Array] = {}
        for position, (spec, (_, names)) in enumerate(zip(self._inputs, self._aliases, strict=True)):
            value = next((feeds[name] for name in names if name in feeds), None)
            if value is None:
                raise ExecutionError(f"inputs missing: {spec.name}", required=f"one array for each of {self._wanted()}")
            if value.dtype != spec.dtype:
                # OpenVINO would convert in silence; a variant must not depend on the runtime's kindness.
                raise ExecutionError(
                    f"input {spec.name} has the type {value.dtype}", required=f"{spec.name}: {spec.dtype}"
                )
            values[position] = value
        if len(feeds) != len(values):
            known = set().union(*(names for _, names in self._aliases))
            unknown = ", ".join(sorted(feeds.keys() - known)) or "one input under two names"
            raise ExecutionError(f"inputs unknown to the model: {unknown}", required=f"only {self._wanted()}")
        return values

    def _wanted(self) -> str:
        return ", ".join(spec.name for spec in self._inputs)


class OpenVino:
    """OpenVINO with its CPU plugin."""

    @property
    def name(self) -> str:
        """The runtime's name, as in RuntimeName."""
        return RuntimeName.OPENVINO.value

    def version(self) -> str:
        """Return the version of the library; raises MissingExtraError where it is not installed."""
        return str(self._library.__version__).partition("-")[0]

    def load(self, model: Path | bytes, *, threads: int = 1, optimise: bool = True) -> OpenVinoSession:
        """Compile a model file (external data beside it is found) or its bytes.

        OpenVINO always optimises: `optimise=False` is refused rather than ignored. Raises
        ExecutionError with OpenVINO's own words where it refuses.
        """
        if not optimise:
            raise ExecutionError("OpenVINO cannot run a graph without optimising it", required="optimise=True")
        return self._compile(model, threads=threads, profiled=False)

    def profile(
        self, model: Path | bytes, feeds: Sequence[Mapping[str, Array]], *, threads: int = 1, rounds: int = 20
    ) -> tuple[KernelTime, ...]:
        """Return the time of every kernel that ran, in execution order.

        The model runs `max(rounds, len(feeds))` times after warm-up, taking the feeds in turn.
        OpenVINO only counts the mean of all runs, in whole microseconds. So the runs are divided
        over three compiled copies, whose median is not moved by one interrupted run; and what
        rounding and counting shift is taken off all kernels alike, so that they add up to the time
        of a run without counters.
        """
        each = -(-max(rounds, len(feeds)) // _COPIES)
        given = model.read_bytes() if isinstance(model, Path) else model
        origins = Origins(read_nodes(given))
        plain = self._compile(model, threads=threads, profiled=False)
        plain_us: list[float] = []
        found: dict[_Key, KernelTime] = {}
        samples: dict[_Key, list[float]] = {}
        for copy in range(_COPIES):
            counted = self._compile(model, threads=threads, profiled=True)
            warm: dict[_Key, float] = {}
            for index in range(-_WARM_UP, each):
                if index == 0:
                    warm = {key: kernel.time_us for key, kernel in _kernels(counted, origins).items()}
                feed = feeds[(copy * each + index) % len(feeds)]
                plain_us.append(_timed_us(plain, feed))
                counted.run(feed)
            for key, kernel in _kernels(counted, origins).items():
                # n runs of mean m took n * m together: so the warm-up, which compiles, is taken out.
                total_us = (_WARM_UP + each) * kernel.time_us - _WARM_UP * warm.get(key, 0.0)
                found.setdefault(key, kernel)
                samples.setdefault(key, []).append(total_us / each)
        times = {key: float(np.median(values)) for key, values in samples.items()}
        return _add_up(found, times, float(np.median(plain_us)))

    @cached_property
    def _library(self) -> Any:
        return require("openvino", extra="openvino")

    @cached_property
    def _core(self) -> Any:
        return self._library.Core()

    def _compile(self, model: Path | bytes, *, threads: int, profiled: bool) -> OpenVinoSession:
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            # On processors with AMX the default is bfloat16: an "fp32" figure would not be one.
            "INFERENCE_PRECISION_HINT": "f32",
            # A pinned thread cannot leave a core that a neighbour keeps busy.
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": profiled,
        }
        try:
            read = self._core.read_model(str(model)) if isinstance(model, Path) else self._core.read_model(model, b"")
            return OpenVinoSession(self._core.compile_model(read, "CPU", options))
        except _REFUSALS as error:
            origin = f" {model}" if isinstance(model, Path) else ""
            raise ExecutionError(f"OpenVINO could not load the model{origin}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return the useful lines of an OpenVINO message: not those that name its source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    text = " ".join(useful or lines)
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."


def _kernels(session: OpenVinoSession, origins: Origins) -> dict[_Key, KernelTime]:
    """Read the execution graph: its nodes carry times, precisions and the names they were made from.

    It says "not_executed" of a kernel that takes less than a microsecond as well as of one that ran
    at compilation: the latter reads only constants, and is left out.
    """
    found: list[tuple[int, KernelTime]] = []
    constant: set[str] = set()
    for operation in session.native.get_runtime_model().get_ordered_ops():
        facts = {key: str(getattr(value, "value", value)) for key, value in operation.get_rt_info().items()}
        elapsed = facts.get("execTimeMcs", "not_executed")
        kind = facts.get("layerType", operation.get_type_name())
        name = str(operation.get_friendly_name())
        inputs = tuple(str(each.get_node().get_friendly_name()) for each in operation.input_values())
        if kind == "Const" or (inputs and constant.issuperset(inputs)):
            constant.add(name)
            continue
        if kind in {"Input", "Output"}:
            continue
        made_from = [part for part in facts.get("originalLayersNames", "").split(",") if part]
        kernel = KernelTime(
            name=name,
            kind=kind,
            time_us=float(elapsed) if elapsed.isdigit() else 0.0,
            outputs=(name,),
            inputs=inputs,
            runs_quantized=kind in _COMPUTING and facts.get("runtimePrecision", "") in _INTEGER_PRECISIONS,
            origins=tuple(dict.fromkeys(tensor for part in made_from for tensor in origins.of(part))),
        )
        found.append((int(facts.get("execOrder", "0")), kernel))
    keyed: dict[_Key, KernelTime] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for _, kernel in sorted(found, key=lambda each: each[0]):
        stem = _NUMBER.sub("", kernel.name), kernel.kind
        keyed[(*stem, seen[stem])] = kernel
        seen[stem] += 1
    return keyed


def _add_up(
    kernels: Mapping[_Key, KernelTime], times_us: Mapping[_Key, float], total_us: float
) -> tuple[KernelTime, ...]:
    """Shift all times alike so that they add up to `total_us`, as far as rounding and counting explain."""
    shift = (total_us - sum(times_us.values())) / max(len(kernels), 1)
    shift = float(np.clip(shift, -_MAX_SHIFT_US, _MAX_SHIFT_US))
    return tuple(
        msgspec.structs.replace(kernel, time_us=max(times_us[key] + shift, _SHORTEST_US))
        for key, kernel in kernels.items()
    )


def _timed_us(session: OpenVinoSession, feeds: Mapping[str, Array]) -> float:
    begin = time.perf_counter_ns()
    session.run(feeds)
    return (time.perf_counter_ns() - begin) / 1000


def _spec(port: Any) -> TensorSpec:
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.partial_shape)
    return TensorSpec(str(port.any_name), str(np.dtype(port.element_type.to_dtype())), shape)
