"""Run the user's own model on made-up inputs, so that a changed graph can be held against it.

A pass that is wrong on some graph must not ship: whatever was changed, both models run here on the
same inputs and have to agree. Where the user's model runs on none of the inputs made up here, that
is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewise.errors import ExecutionError, ModelError
from edgewise.runtimes.base import Array, Session
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

TOLERANCE = 1e-3
"""Largest difference, relative to the largest magnitude of an output: rounding, and nothing but rounding."""

# Sizes for dynamic axes behind the first, in the order tried: tokens, pixels, audio samples.
_SIZES = (8, 16, 32, 64, 128, 224, 1, 512, 16000)
_MAX_ELEMENTS = 1 << 24
_FILLS = ("ones", "padded", "mixed")
_SEED = 20
# Share of a whole-number output (classes, kept boxes) that rounding may decide the other way.
_MOVED = 0.02


class Trial(msgspec.Struct, frozen=True):
    """Inputs, and what the user's own model makes of them."""

    name: str
    feeds: dict[str, Array]
    expected: tuple[Array, ...]


class Trials:
    """Inputs on which the user's own model was run."""

    def __init__(self, original: Path | bytes, inputs: Iterable[onnx.ValueInfoProto], *, thorough: bool = False) -> None:
        """Find sizes on which `original` runs, and run it; `thorough` adds sizes and masks of tokens.

        `inputs` are those of the normalised model: where the user fixed sizes, those are used. Raises
        ModelError where ONNX Runtime does not load the model.
        """
        self._inputs = tuple(inputs)
        try:
            self._session: Session = OnnxRuntime().load(original)
        except ExecutionError as error:
            raise ModelError(
                error.found, required="a model that ONNX Runtime can run",
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
                    return f"the output {name!r} differs by {worst[1]:.2g} of its largest value ({trial.name})"
        except ExecutionError as error:
            return error.found
        return ""

    def _all(self, *, thorough: bool) -> Iterator[Trial]:
        sized = self._sized()
        if sized is None:
            return
        batch, size, first = sized
        yield first
        if not thorough:
            return
        others = [(2, size + 3), (1, size)] if batch > 1 else [(1, size + 3)]
        for fill in _FILLS:
            for sizes in ((batch, size), *others):
                trial = self._run(*sizes, fill)
                if trial is not None and trial.name != first.name:
                    yield trial

    def _sized(self) -> tuple[int, int, Trial] | None:
        batches = (2, 1) if any(_is_free(value, 0) for value in self._inputs) else (1,)
        free = any(_is_free(value, axis) for value in self._inputs for axis in range(1, _rank(value)))
        for size in _SIZES if free else _SIZES[:1]:
            for batch in batches:
                trial = self._run(batch, size, _FILLS[0])
                if trial is not None:
                    return batch, size, trial
        return None

    def _run(self, batch: int, size: int, fill: str) -> Trial | None:
        rng = np.random.default_rng(_SEED)
        feeds = {}
        for value in self._inputs:
            shape = _shape(value, batch, size)
            if np.prod(shape, dtype=np.float64) > _MAX_ELEMENTS:
                return None
            feeds[value.name] = _values(value.type.tensor_type.elem_type, shape, fill, rng)
        try:
            expected = self._session.run(feeds)
        except ExecutionError:
            return None
        if not all(isinstance(each, np.ndarray) for each in expected):
            return None
        return Trial(f"batch {batch}, size {size}, {fill}", feeds, expected)


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
    if fill == "padded" and values.ndim:
        values[..., -(-values.shape[-1] * 2 // 3) :] = 0
    elif fill == "mixed":
        values = rng.integers(0, 2, shape).astype(dtype)
        values[..., :1] = 1
    return values


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _is_free(value: onnx.ValueInfoProto, axis: int) -> bool:
    return axis < _rank(value) and not value.type.tensor_type.shape.dim[axis].HasField("dim_value")


def _shape(value: onnx.ValueInfoProto, batch: int, size: int) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (batch if axis == 0 else size) for axis, dim in enumerate(dims)
    )
