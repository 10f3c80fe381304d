"""ONNX Runtime on the CPU: the default runtime, on the workstation and on the device."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from edgewise.contracts.target import RuntimeName
from edgewise.errors import CustomOperatorError, ExecutionError, OutOfMemoryError, UnsafeModelError
from edgewise.runtimes.base import Array, KernelTime, TensorSpec

PROVIDERS = ("CPUExecutionProvider",)

REFUSALS: tuple[type[Exception], ...] = (
    *(each for each in vars(native).values() if isinstance(each, type) and issubclass(each, Exception)),
    # Plain C++ exceptions arrive as RuntimeError or MemoryError, wrong Python values as the others.
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
)
"""All that ONNX Runtime raises; its own classes have no common base but Exception."""

NAMED: Mapping[str, type[ExecutionError]] = {
    "External data path": UnsafeModelError,
    "not a registered function/op": CustomOperatorError,
    "Failed to allocate memory": OutOfMemoryError,
    "bad_alloc": OutOfMemoryError,
}
"""Refusals with a name of their own, by what ONNX Runtime says."""

_MAX_MESSAGE = 300
_WARM_UP = 2
_EXTERNAL_FROM_BYTES, _NEVER_EXTERNAL = 1 << 20, 1 << 40

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "object",
}


class Level(enum.Enum):
    """How far ONNX Runtime optimises a graph."""

    NONE = "none"
    BASIC = "basic"
    """Standard operators only: constants folded, batch norms and MatMul+Add fused, dead ends cut."""
    EXTENDED = "extended"
    """Also com.microsoft operators (Attention, FusedConv, QLinearAdd, ...)."""
    ALL = "all"
    """Also this processor's memory layouts (NCHWc, NHWC)."""


def session_options(*, threads: int, level: Level = Level.ALL) -> onnxruntime.SessionOptions:
    """Return options for predictable sessions: explicit threads, no spinning, no log.

    Spinning workers make one session look fast and everything else on the device slow; interleaved
    measurements would time the neighbours' spinning.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = _native_level(level)
    return options


class OnnxRuntimeSession:
    """A variant loaded by ONNX Runtime; create it with `OnnxRuntime.load`."""

    def __init__(self, native_session: onnxruntime.InferenceSession) -> None:
        """Wrap a native session; its inputs and outputs are read once."""
        self.native = native_session
        self._inputs = tuple(_spec(each) for each in native_session.get_inputs())
        self._outputs = tuple(_spec(each) for each in native_session.get_outputs())
        self._input_names = frozenset(each.name for each in self._inputs)
        self._output_names = [each.name for each in self._outputs]

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
        if feeds.keys() != self._input_names:
            raise _wrong_feeds(feeds, self._input_names)
        try:
            return tuple(self.native.run(self._output_names, feeds))
        except REFUSALS as error:
            raise named(error)(
                f"ONNX Runtime could not run the model: {reason(error)}",
                required=f"inputs {', '.join(_show(each) for each in self._inputs)}",
            ) from error


class OnnxRuntime:
    """ONNX Runtime with the CPU execution provider."""

    @property
    def name(self) -> str:
        """The runtime's name, as in RuntimeName."""
        return RuntimeName.ONNXRUNTIME.value

    def version(self) -> str:
        """Return the version of the library."""
        return str(onnxruntime.__version__)

    def load(self, model: Path | bytes, *, threads: int = 1, optimise: bool = True) -> OnnxRuntimeSession:
        """Load a model file (external data beside it is found) or its bytes.

        Raises ExecutionError with ONNX Runtime's own words where it refuses.
        """
        options = session_options(threads=threads, level=Level.ALL if optimise else Level.NONE)
        return OnnxRuntimeSession(_create(model, options))

    def profile(
        self, model: Path | bytes, feeds: Sequence[Mapping[str, Array]], *, threads: int = 1, rounds: int = 20
    ) -> tuple[KernelTime, ...]:
        """Return the time of every kernel of the optimised graph in execution order.

        The model runs `max(rounds, len(feeds))` times, taking the feeds in turn, after two runs of
        warm-up; every run is paired with one of a session without the profiler, whose cost is taken
        off the kernels (see `kernel_times`), so that they add up to the time of a real run. A kernel
        that contains others (If, Loop) is given its own time only.
        """
        # A device does not profile: it need not load what reads graphs, nor hashes and archives behind tempfile.
        import tempfile  # noqa: PLC0415

        from edgewise.runtimes.onnxruntime_profile import kernel_times  # noqa: PLC0415

        runs = max(rounds, len(feeds))
        plain = self.load(model, threads=threads)
        plain_us: list[float] = []
        profiled_us: list[float] = []
        with tempfile.TemporaryDirectory(prefix="edgewise-profile-") as folder:
            optimised_path = Path(folder) / "optimised.onnx"
            options = session_options(threads=threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            _save_optimised(options, optimised_path, external_from_bytes=_EXTERNAL_FROM_BYTES)
            profiled = OnnxRuntimeSession(_create(model, options))
            for index in range(-_WARM_UP, runs):
                feed = feeds[index % len(feeds)]
                plain_us.append(_timed_us(plain, feed))
                profiled_us.append(_timed_us(profiled, feed))
            trace = Path(profiled.native.end_profiling()).read_bytes()
            given = model.read_bytes() if isinstance(model, Path) else model
            return kernel_times(
                trace,
                optimised=optimised_path.read_bytes(),
                given=given,
                plain_us=plain_us[_WARM_UP:],
                profiled_us=profiled_us[_WARM_UP:],
            )


def _timed_us(session: OnnxRuntimeSession, feeds: Mapping[str, Array]) -> float:
    begin = time.perf_counter_ns()
    session.run(feeds)
    return (time.perf_counter_ns() - begin) / 1000


def optimised(
    model: Path | bytes, *, level: Level = Level.BASIC, without: Sequence[str] = (), threads: int = 1
) -> bytes:
    """Return the serialised graph after ONNX Runtime's own optimisations, weights embedded.

    `without` names transformations to leave out (`ConstantFolding`, `MatMulAddFusion`, ...).
    Raises ExecutionError where the model is refused, or does not fit a protobuf file (2 GiB).
    """
    import tempfile  # noqa: PLC0415 - as in `OnnxRuntime.profile`

    with tempfile.TemporaryDirectory(prefix="edgewise-optimise-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options(threads=threads, level=level)
        # Left alone, weights that no pass has touched stay references to the given model's data files.
        _save_optimised(options, path, external_from_bytes=_NEVER_EXTERNAL)
        _create(model, options, without=without)
        return path.read_bytes()


def reason(error: BaseException) -> str:
    """Return the useful line of an ONNX Runtime message: no status code, source file or newline."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    # Checks in its source put file, line and the signature of the C++ function before their words.
    _, found, tail = text.rpartition(") ") if "/onnxruntime_src/" in text else ("", "", text)
    useful = tail if found and len(tail) > len("was false.") else text
    return useful if len(useful) <= _MAX_MESSAGE else useful[: _MAX_MESSAGE - 3] + "..."


def named(error: Exception) -> type[ExecutionError]:
    """Return what one of `REFUSALS` is raised as."""
    words = str(error)
    return next((each for sign, each in NAMED.items() if sign in words), ExecutionError)


def _create(
    model: Path | bytes, options: onnxruntime.SessionOptions, *, without: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=list(PROVIDERS), disabled_optimizers=list(without) or None
        )
    except REFUSALS as error:
        origin = f" {model}" if isinstance(model, Path) else ""
        raise named(error)(f"ONNX Runtime could not load the model{origin}: {reason(error)}") from error


def _save_optimised(options: onnxruntime.SessionOptions, path: Path, *, external_from_bytes: int) -> None:
    """Have the optimised graph saved, its larger weights beside it, so that no size is too large."""
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(external_from_bytes)
    )


def _native_level(level: Level) -> Any:
    levels = onnxruntime.GraphOptimizationLevel
    match level:
        case Level.NONE:
            return levels.ORT_DISABLE_ALL
        case Level.BASIC:
            return levels.ORT_ENABLE_BASIC
        case Level.EXTENDED:
            return levels.ORT_ENABLE_EXTENDED
        case Level.ALL:
            return levels.ORT_ENABLE_ALL


def _spec(argument: Any) -> TensorSpec:
    kind = str(argument.type)
    dtype = _DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")"))
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(str(argument.name), dtype, shape)


def _show(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def _wrong_feeds(feeds: Mapping[str, Array], expected: frozenset[str]) -> ExecutionError:
    missing = sorted(expected - feeds.keys())
    unknown = sorted(feeds.keys() - expected)
    found = [f"inputs missing: {', '.join(missing)}"] if missing else []
    found += [f"inputs unknown to the model: {', '.join(unknown)}"] if unknown else []
    return ExecutionError("; ".join(found), required=f"one array for each of {', '.join(sorted(expected))}")
