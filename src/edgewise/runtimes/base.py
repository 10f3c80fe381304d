"""One protocol behind which every runtime executes a variant."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from edgewise.errors import MissingExtraError

Array = NDArray[Any]


class TensorSpec(msgspec.Struct, frozen=True):
    """A model input or output: name, numpy dtype name, shape with None for dynamic axes."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class KernelTime(msgspec.Struct, frozen=True):
    """Typical time of one kernel per inference (midmean over rounds), from the runtime's own profile.

    `outputs` and `inputs` are tensor names in the graph as the runtime optimised it. Layout passes
    rename those, so `origins` ties a fused kernel to the regions it came from: the tensors *of the
    model as given* that the kernel is known to compute. A kernel that absorbed a following node (a
    Relu, a residual Add) names at least the tensor of the node it is built on.
    """

    name: str
    kind: str
    time_us: float
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    runs_quantized: bool = False
    origins: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded variant."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs in graph order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs in graph order."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Execute once; returns the outputs in graph order."""
        ...


class Runtime(Protocol):
    """A runtime library. Sessions are created with explicit threads and without spinning."""

    @property
    def name(self) -> str:
        """The runtime's name, as in RuntimeName."""
        ...

    def version(self) -> str:
        """Return the version of the library."""
        ...

    def load(self, model: Path | bytes, *, threads: int = 1, optimise: bool = True) -> Session:
        """Load a variant; raises ExecutionError with the runtime's own words where it refuses."""
        ...

    def profile(
        self, model: Path | bytes, feeds: tuple[Mapping[str, Array], ...], *, threads: int = 1, rounds: int = 20
    ) -> tuple[KernelTime, ...]:
        """Return the time of every kernel of the optimised graph in execution order, over `feeds`."""
        ...


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library, or say which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"the library {module!r} is not installed ({error})",
            required=f"edgewise[{extra}]",
            next_step=f"pip install 'edgewise[{extra}]'",
        ) from error


def installed(module: str) -> bool:
    """Return whether a library could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    # Brings email, zipfile and sockets along: 10 ms that a device which only infers need not spend.
    from importlib import metadata  # noqa: PLC0415

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
