"""A session that allocates nothing per inference: inputs and outputs are bound once and written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgewise.errors import ExecutionError, ModelError
from edgewise.runtimes.base import Array, TensorSpec
from edgewise.runtimes.onnxruntime_ import REFUSALS, OnnxRuntime, OnnxRuntimeSession, named, reason

Shapes = Mapping[str, tuple[int | None, ...]]
"""Sizes of inputs, for those that the model leaves open. None stays open: each call says it, or a state grows there."""


class BoundSession:
    """A model of ONNX Runtime with bound inputs and outputs; one thread at a time may use it.

    `state` pairs an input with the output that it takes its next value from, or with itself where it keeps the value
    that `set_state` gives; `run` is not given them. All start as zeros. A state with an open axis starts empty and
    grows (a KV cache): its output stays in the runtime, becomes the next input without a copy, and is not returned.
    """

    def __init__(self, model: Path, *, threads: int, shapes: Shapes, state: Sequence[tuple[str, str]] = ()) -> None:
        """Load and bind. Raises ExecutionError where the model is refused, ModelError where a size is missing."""
        loaded = OnnxRuntime().load(model, threads=threads)
        self._native = loaded.native
        self.executing = 0
        """The number of the execution that is under way; 0 while there is none."""
        self._executions = 0
        self._state = tuple(state)
        self._specs = {each.name: _settled(each, shapes) for each in loaded.inputs}
        self._output_specs = _resolved(loaded, self._specs)
        self._check_state(state)
        self._growing = frozenset(name for name, _ in state if None in self._specs[name].shape)
        self._grown: dict[str, Any] = {}
        self._targets = {target: source for source, target in state if source in self._growing - {target}}
        self._copied = tuple((source, target) for source, target in state if source not in self._growing | {target})
        self.given = frozenset(self._specs) - {name for name, _ in state}
        """Names of the inputs that `run` needs."""
        self._binding = self._native.io_binding()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4  # an execution that is cut is no error to print
        # "No graph capture", for WebGPU. Where it is not said, each run raises and catches an error: 35 us.
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        self.inputs: dict[str, Array] = {}
        """The arrays that the model reads, by name. Of one with an open axis, an example: the last one given."""
        for name, spec in self._specs.items():
            self._set(name, _zeros(spec, 0 if name in self._growing else 1))
        self._output_names = tuple(each.name for each in self._output_specs)
        self._open_outputs = tuple(each.name for each in self._output_specs if None in each.shape)
        self._views: dict[str, Array] = {}
        for spec in self._output_specs:
            if None in spec.shape:  # its size may depend on the values: the runtime has to allocate it
                self._binding.bind_output(spec.name, "cpu")
                continue
            array = _zeros(spec, 0)
            self._views[spec.name] = _read_only(array)
            self._binding.bind_output(spec.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; returns read-only arrays that the next call overwrites.

        State moves on only where the execution succeeds. Raises ExecutionError.
        """
        if feeds.keys() != self.given:
            raise ExecutionError(f"inputs {sorted(feeds)}", required=f"exactly {sorted(self.given)}")
        for name, array in feeds.items():
            self._put(name, array)
        outputs, grown = self._execute()
        for source, target in self._copied:
            if outputs[target].shape != self.inputs[source].shape:
                raise ExecutionError(
                    f"state {source!r} would become {list(outputs[target].shape)}",
                    required=f"{list(self.inputs[source].shape)}, as it was given",
                )
        for source, target in self._copied:
            np.copyto(self.inputs[source], outputs[target])
        self._grow(grown)
        return outputs

    def run_from(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once with every input given, states too; the states are as at the start afterwards."""
        for name, array in feeds.items():
            if name not in self.inputs:
                raise ExecutionError(f"input {name!r}", required=f"one of {sorted(self.inputs)}")
            self._put(name, array)
        outputs, _ = self._execute()
        self.reset()
        return outputs

    def reset(self) -> None:
        """Forget the stream: every state is zeros again, or empty where it grows."""
        for name, _ in self._state:
            if name in self._growing:
                self._set(name, _zeros(self._specs[name], 0))
            else:
                self.inputs[name].fill(0)

    def set_state(self, values: Mapping[str, Array]) -> None:
        """Begin the stream with these states, copied. Raises ExecutionError, and leaves them all then."""
        names = {name for name, _ in self._state}
        for name, array in values.items():
            if name not in names:
                raise ExecutionError(f"state {name!r}", required=f"one of {sorted(names)}")
            self._check(name, array)
        for name, array in values.items():
            if name in self._growing:
                self._set(name, np.array(array, order="C"))
            else:
                np.copyto(self.inputs[name], array)

    def take_state(self, other: BoundSession) -> bool:
        """Go on with another variant's stream; return False, with the states reset, where they are not of one form."""
        mine = {name: self._specs[name] for name, _ in self._state}
        if mine != {name: other._specs[name] for name, _ in other._state}:
            self.reset()
            return False
        for name in mine:
            if name in other._grown:
                self._grow({name: other._grown[name]})
            elif name in self._growing:
                self._set(name, other.inputs[name])
            else:
                np.copyto(self.inputs[name], other.inputs[name])
        return True

    def close(self) -> None:
        """Do nothing: all goes with the session itself."""

    def stop(self) -> None:
        """Make an execution that is under way in another thread, and all to come, fail at the next operator."""
        self._options.terminate = True

    def allow(self) -> None:
        """Take `stop` back."""
        self._options.terminate = False

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end and that was not taken back."""
        return bool(self._options.terminate)

    @property
    def is_stateful(self) -> bool:
        """Whether an output depends on the runs before."""
        return bool(self._state)

    @property
    def outputs(self) -> Mapping[str, tuple[tuple[int, ...] | None, np.dtype[Any]]]:
        """Shape and type of each output that is returned; the shape is None where it depends on the input."""
        return {
            each.name: (_sizes(each), np.dtype(each.dtype))
            for each in self._output_specs
            if each.name not in self._targets
        }

    def _put(self, name: str, array: Array) -> None:
        mine = self.inputs[name]
        if array.shape == mine.shape and array.dtype == mine.dtype and name not in self._growing:
            np.copyto(mine, array)
            return
        self._check(name, array)
        self._set(name, np.array(array, order="C"))

    def _check(self, name: str, array: Array) -> None:
        """Raise ExecutionError where an array does not fit an input."""
        spec = self._specs[name]
        fits = len(array.shape) == len(spec.shape) and all(
            due in {None, size} for size, due in zip(array.shape, spec.shape, strict=True)
        )
        if not fits or array.dtype != spec.dtype:
            due = ", ".join("?" if size is None else str(size) for size in spec.shape)
            raise ExecutionError(f"input {name!r} is {array.dtype}{list(array.shape)}", required=f"{spec.dtype}[{due}]")

    def _set(self, name: str, array: Array) -> None:
        """Let the model read another array, of another size."""
        self._grown.pop(name, None)
        self.inputs[name] = array
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _grow(self, grown: Mapping[str, Any]) -> None:
        """Let the model read what it wrote, where it wrote it."""
        for name, value in grown.items():
            self._grown[name] = value
            self._binding.bind_ortvalue_input(name, value)

    def _execute(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return outputs by name, and what the states that grow go on with."""
        for name in self._open_outputs:  # else the runtime would write where the run before has written
            self._binding.bind_output(name, "cpu")
        self._executions += 1
        self.executing = self._executions
        try:
            self._native.run_with_iobinding(self._binding, self._options)
        except REFUSALS as error:
            raise named(error)(f"ONNX Runtime could not run the model: {reason(error)}") from error
        finally:
            self.executing = 0
        if not self._open_outputs:
            return self._views, {}
        values = dict(zip(self._output_names, self._binding.get_outputs(), strict=True))
        found = {name: _read_only(values[name].numpy()) for name in self._open_outputs if name not in self._targets}
        return self._views | found, {source: values[target] for target, source in self._targets.items()}

    def _check_state(self, state: Sequence[tuple[str, str]]) -> None:
        outputs = {each.name: each for each in self._output_specs}
        for source, target in state:
            mine = self._specs.get(source)
            its = mine if source == target else outputs.get(target)
            if mine is None or its is None or mine.dtype != its.dtype or not _can_follow(mine.shape, its.shape):
                raise ModelError(
                    f"the state {source!r} cannot be taken from {target!r}",
                    required="an input and an output of one type and shape; what grows must be open in both",
                    next_step="correct the pairs of `state`",
                )


def _settled(spec: TensorSpec, shapes: Shapes) -> TensorSpec:
    """Return an input with the sizes that were given. Raises ModelError where one is missing or another."""
    shape = shapes.get(spec.name, spec.shape)
    fits = len(shape) == len(spec.shape) and all(b in {None, a} for a, b in zip(shape, spec.shape, strict=False))
    if not fits or (None in shape and spec.name not in shapes):
        raise ModelError(
            f"input {spec.name!r} has the shape {list(spec.shape)}, given {list(shape)}",
            required="a size for every axis, the same as the model's where it has one",
            next_step="give `shapes`; None for an axis whose size each call says",
        )
    return TensorSpec(spec.name, spec.dtype, tuple(shape))


def _resolved(loaded: OnnxRuntimeSession, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the outputs; an axis with the name of an input's has its size, so that it can be bound beforehand."""
    sizes: dict[str, set[int | None]] = {}
    for each in loaded.native.get_inputs():
        for axis, size in zip(each.shape, inputs[each.name].shape, strict=True):
            if isinstance(axis, str):
                sizes.setdefault(axis, set()).add(size)
    known = {axis: next(iter(found)) for axis, found in sizes.items() if len(found) == 1}
    return tuple(
        TensorSpec(spec.name, spec.dtype, tuple(known.get(a, b) for a, b in zip(each.shape, spec.shape, strict=True)))
        for each, spec in zip(loaded.native.get_outputs(), loaded.outputs, strict=True)
    )


def _can_follow(mine: tuple[int | None, ...], its: tuple[int | None, ...]) -> bool:
    """Return whether an output may become an input: a size that only the output leaves open is seen as it runs."""
    return len(mine) == len(its) and all(b in {None, a} for a, b in zip(mine, its, strict=True))


def _zeros(spec: TensorSpec, open_size: int) -> Array:
    return np.zeros(tuple(open_size if size is None else size for size in spec.shape), spec.dtype)


def _sizes(spec: TensorSpec) -> tuple[int, ...] | None:
    sizes = tuple(size for size in spec.shape if size is not None)
    return sizes if len(sizes) == len(spec.shape) else None


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
