"""Run the user's own model on made-up inputs, so that a changed graph can be held against it.

A pass that is wrong on some graph must not ship: whatever was changed, both models run here on the
same inputs and have to agree. Where the user's model runs on none of the inputs made up here, that
is said.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewise.errors import ExecutionError, HostileModelError, ModelError
from edgewise.runtimes.base import Array, Session
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

TOLERANCE = 1e-3
"""Largest difference, relative to the largest magnitude of an output: rounding, and nothing but rounding."""

# Sizes for dynamic axes behind the first, in the order tried: tokens, pixels, audio samples, and audio
# with what a model keeps of the samples before.
_SIZES = (8, 16, 32, 64, 128, 224, 1, 512, 576, 16000)
_SEARCH_S = 1.5
_THOROUGH_S = 10.0
_OUT_OF_MEMORY = "Failed to allocate memory"
# Of audio in Hz: the one number without axes that a model may refuse to be 1.
_RATE = 16000
_MAX_ELEMENTS = 1 << 24
_FILLS = ("ones", "padded", "mixed")
_SEED = 20
# Share of a whole-number output (classes, kept boxes) that rounding may decide the other way.
_MOVED = 0.02


class Axis(msgspec.Struct, frozen=True):
    """A free axis: those with one name in the model have one size. `position` 0 is taken for the batch."""

    name: str
    position: int


Sizes = Mapping[Axis, int]


class Trial(msgspec.Struct, frozen=True):
    """Inputs, and what the user's own model makes of them."""

    feeds: dict[str, Array]
    expected: tuple[Array, ...]
    sizes: Sizes
    fill: str

    def __str__(self) -> str:
        """Say what was tried."""
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in self.feeds.items())
        return f"{shapes}; {self.fill}"


class Trials:
    """Inputs on which the user's own model was run."""

    def __init__(
        self, original: Path | bytes, inputs: Iterable[onnx.ValueInfoProto], *, thorough: bool = False
    ) -> None:
        """Find sizes on which `original` runs, and run it; `thorough` adds sizes and masks of tokens.

        `inputs` are those of the normalised model: where the user fixed sizes, those are used. Raises
        ModelError where ONNX Runtime does not load the model.
        """
        self._inputs = tuple(inputs)
        self._starved = ""
        try:
            self._session: Session = OnnxRuntime().load(original)
        except ExecutionError as error:
            raise ModelError(
                error.found,
                required="a model that ONNX Runtime can run",
                next_step="check the export with onnxruntime.InferenceSession",
            ) from error
        self.trials = tuple(self._all(thorough=thorough))

    def mismatch(self, changed: bytes) -> str:
        """Return where `changed` differs from the user's model, or nothing where it agrees."""
        try:
            session = OnnxRuntime().load(changed)
            for trial in self.trials:
                found = session.run(trial.feeds)
                worst = _worst(trial.expected, found)
                if worst and _steady(self._session, trial):
                    name = self._session.outputs[worst[0]].name
                    return f"the output {name!r} differs by {worst[1]:.2g} of its largest value ({trial})"
        except ExecutionError as error:
            return error.found
        return ""

    def _all(self, *, thorough: bool) -> Iterator[Trial]:
        first = self._first()
        if first is None:
            return
        yield first
        if not thorough:
            return
        longer = {axis: size + 3 if axis.position else size for axis, size in first.sizes.items()}
        single = {axis: size if axis.position else 1 for axis, size in first.sizes.items()}
        whole = any(value.type.tensor_type.elem_type != TensorProto.FLOAT for value in self._inputs)
        fills = _FILLS if whole else _FILLS[:1]
        seen = [(first.sizes, first.fill)]
        until = time.monotonic() + _THOROUGH_S
        for fill in fills:
            for sizes in (first.sizes, longer, single):
                if (sizes, fill) not in seen and time.monotonic() < until:
                    seen.append((sizes, fill))
                    trial = self._run(sizes, fill)
                    if trial is not None:
                        yield trial

    def _first(self) -> Trial | None:
        """Return the first trial that runs: plain sizes, then any mixture of them, for a while."""
        axes = _free_axes(self._inputs)
        batches = (2, 1) if any(not axis.position for axis in axes) else (1,)
        sizes = _SIZES if any(axis.position for axis in axes) else _SIZES[:1]
        plain = [{axis: size if axis.position else batch for axis in axes} for size in sizes for batch in batches]
        scalars = any(not value.type.tensor_type.shape.dim for value in self._inputs)
        mixed = itertools.product((1, *_SIZES), repeat=len(axes))
        fills = ("ones", "rate") if scalars else ("ones",)
        until = time.monotonic() + _SEARCH_S
        for given in itertools.chain(plain, (dict(zip(axes, each, strict=True)) for each in mixed)):
            for fill in fills:
                trial = self._run(given, fill)
                if trial is not None:
                    return trial
            if self._starved and given == plain[0]:
                raise HostileModelError(
                    f"the model cannot be run on its smallest input: {self._starved}",
                    required="a model that runs in the memory of a device",
                    next_step="look for a tensor of an absurd size in it",
                )
            if time.monotonic() > until:
                return None
        return None

    def _run(self, sizes: Sizes, fill: str) -> Trial | None:
        rng = np.random.default_rng(_SEED)
        feeds = {}
        for value in self._inputs:
            shape = _shape(value, sizes)
            if math.prod(shape) > _MAX_ELEMENTS:
                return None
            feeds[value.name] = _values(value.type.tensor_type.elem_type, shape, fill, rng)
        try:
            expected = self._session.run(feeds)
        except ExecutionError as error:
            self._starved = error.found if _OUT_OF_MEMORY in error.found else ""
            return None
        if not all(isinstance(each, np.ndarray) for each in expected):
            return None
        return Trial(feeds, expected, sizes, fill)


def observed_shapes(
    model: onnx.ModelProto, names: Iterable[str], feeds: dict[str, Array]
) -> dict[str, tuple[int, ...]]:
    """Run a model and return the shapes of tensors inside it; nothing where it does not run so."""
    wanted = list(dict.fromkeys(names))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {value.name for value in watched.graph.output}
    # Without a type: the runtime knows it.
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    try:
        session = OnnxRuntime().load(watched.SerializeToString(), optimise=False)
        found = dict(zip((each.name for each in session.outputs), session.run(feeds), strict=True))
    except ExecutionError:
        return {}
    return {name: tuple(found[name].shape) for name in wanted if name in found}


def _steady(session: Session, trial: Trial) -> bool:
    """Say whether the user's model gives the same again: one with random operators proves nothing."""
    return _worst(trial.expected, session.run(trial.feeds)) is None


def _worst(expected: tuple[Array, ...], found: tuple[Array, ...]) -> tuple[int, float] | None:
    """Return the output that differs the most and by how much, or None where all agree."""
    worst: tuple[int, float] | None = None
    for index, (mine, theirs) in enumerate(zip(expected, found, strict=True)):
        difference = _difference(mine, theirs)
        if difference > (worst[1] if worst else TOLERANCE):
            worst = index, difference
    return worst


def _difference(expected: Array, found: Array) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return np.inf
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind != "f":
        moved = float(np.mean(expected != found))
        return moved if moved > _MOVED else 0.0
    mine, theirs = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(mine)
    if not np.array_equal(finite, np.isfinite(theirs)):
        return np.inf
    largest = float(np.max(np.abs(mine), where=finite, initial=0.0))
    furthest = float(np.max(np.abs(mine - theirs), where=finite, initial=0.0))
    return furthest / max(largest, 1e-6)


def _values(kind: int, shape: tuple[int, ...], fill: str, rng: np.random.Generator) -> Array:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if kind == TensorProto.FLOAT:
        return rng.standard_normal(shape).astype(dtype)
    # Zeros and ones are valid for token ids, positions, lengths, masks and flags alike.
    values = np.ones(shape, dtype)
    if fill == "rate" and not shape:
        values = np.array(_RATE if dtype.itemsize > 1 else 1, dtype)
    elif fill == "padded" and values.ndim:
        values[..., -(-values.shape[-1] * 2 // 3) :] = 0
    elif fill == "mixed":
        values = rng.integers(0, 2, shape).astype(dtype)
        values[..., :1] = 1
    return values


def _free_axes(inputs: Iterable[onnx.ValueInfoProto]) -> tuple[Axis, ...]:
    found: dict[str, Axis] = {}
    for value in inputs:
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                name = _axis_name(value, position)
                found.setdefault(name, Axis(name, position))
    return tuple(found.values())


def _axis_name(value: onnx.ValueInfoProto, position: int) -> str:
    return str(value.type.tensor_type.shape.dim[position].dim_param) or f"{value.name}[{position}]"


def _shape(value: onnx.ValueInfoProto, sizes: Sizes) -> tuple[int, ...]:
    by_name = {axis.name: size for axis, size in sizes.items()}
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else by_name[_axis_name(value, position)]
        for position, dim in enumerate(value.type.tensor_type.shape.dim)
    )
