"""A session that allocates nothing per inference: inputs and outputs are bound once and written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgewise.errors import ExecutionError, ModelError
from edgewise.runtimes.base import Array, TensorSpec
from edgewise.runtimes.onnxruntime_ import REFUSALS, OnnxRuntime, reason

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes of inputs, for those that the model leaves open."""


class BoundSession:
    """A model of ONNX Runtime with bound inputs and outputs; one thread at a time may use it.

    `state` pairs an input with the output that it takes its next value from; all start as zeros, and `run` is
    not given them.
    """

    def __init__(self, model: Path, *, threads: int, shapes: Shapes, state: Sequence[tuple[str, str]] = ()) -> None:
        """Load and bind. Raises ExecutionError where the model is refused, ModelError where a size is missing."""
        loaded = OnnxRuntime().load(model, threads=threads)
        self._native = loaded.native
        self.inputs = {each.name: np.zeros(_shape(each, shapes), each.dtype) for each in loaded.inputs}
        """The arrays that the model reads, by name."""
        self._output_names = tuple(each.name for each in loaded.outputs)
        self._binding = self._native.io_binding()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4  # an execution that is cut is no error to print
        # No graph is captured anyway. Where the entry is missing, each run looks for it by way of an exception: 30 us.
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        for name, array in self.inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._outputs: dict[str, Array] = {}
        self._output_specs = loaded.outputs
        for spec in loaded.outputs:
            if None in spec.shape:  # its size may depend on the values: the runtime has to allocate it
                self._binding.bind_output(spec.name, "cpu")
                continue
            array = self._outputs[spec.name] = np.zeros(_shape(spec, {}), spec.dtype)
            self._binding.bind_output(spec.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._views = {name: _read_only(array) for name, array in self._outputs.items()}
        self._has_open_outputs = len(self._outputs) < len(self._output_names)
        self._state = tuple(state)
        self._check_state()
        self.given = frozenset(self.inputs) - {name for name, _ in state}
        """Names of the inputs that `run` needs."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; returns read-only arrays that the next call overwrites.

        State moves on only where the execution succeeds. Raises ExecutionError.
        """
        if feeds.keys() != self.given:
            raise ExecutionError(f"inputs {sorted(feeds)}", required=f"exactly {sorted(self.given)}")
        for name, array in feeds.items():
            self._put(name, array)
        outputs = self._execute()
        for source, target in self._state:
            np.copyto(self.inputs[source], outputs[target])
        return outputs

    def run_from(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once with every input given, states too; the states are zeros again afterwards."""
        for name, array in feeds.items():
            if name not in self.inputs:
                raise ExecutionError(f"input {name!r}", required=f"one of {sorted(self.inputs)}")
            self._put(name, array)
        outputs = self._execute()
        self.reset()
        return outputs

    def reset(self) -> None:
        """Forget the stream: every state is zeros again."""
        for name, _ in self._state:
            self.inputs[name].fill(0)

    def stop(self) -> None:
        """Make an execution that is under way in another thread, and all to come, fail at the next operator."""
        self._options.terminate = True

    def allow(self) -> None:
        """Take `stop` back."""
        self._options.terminate = False

    @property
    def outputs(self) -> Mapping[str, tuple[tuple[int, ...] | None, np.dtype[Any]]]:
        """Shape and type of each output; the shape is None where it depends on the input."""
        return {
            each.name: (None if None in each.shape else _shape(each, {}), np.dtype(each.dtype))
            for each in self._output_specs
        }

    def _put(self, name: str, array: Array) -> None:
        mine = self.inputs[name]
        if array.shape != mine.shape or array.dtype != mine.dtype:
            raise ExecutionError(
                f"input {name!r} is {array.dtype}{list(array.shape)}", required=f"{mine.dtype}{list(mine.shape)}"
            )
        np.copyto(mine, array)

    def _execute(self) -> dict[str, Array]:
        try:
            self._native.run_with_iobinding(self._binding, self._options)
        except REFUSALS as error:
            raise ExecutionError(f"ONNX Runtime could not run the model: {reason(error)}") from error
        if not self._has_open_outputs:
            return self._views
        found = self._binding.copy_outputs_to_cpu()
        return {name: _read_only(array) for name, array in zip(self._output_names, found, strict=True)}

    def _check_state(self) -> None:
        for source, target in self._state:
            mine, its = self.inputs.get(source), self._outputs.get(target)
            if mine is None or its is None or (mine.shape, mine.dtype) != (its.shape, its.dtype):
                raise ModelError(
                    f"the state {source!r} cannot be taken from {target!r}",
                    required="an input and an output of one type and one fixed shape",
                    next_step="correct the pairs of `state`",
                )


def _shape(spec: TensorSpec, shapes: Shapes) -> tuple[int, ...]:
    shape = shapes.get(spec.name, spec.shape)
    fits = len(shape) == len(spec.shape) and all(b in {None, a} for a, b in zip(shape, spec.shape, strict=False))
    sizes = tuple(size for size in shape if size is not None)
    if not fits or len(sizes) < len(shape):
        raise ModelError(
            f"input {spec.name!r} has the shape {list(spec.shape)}, given {list(shape)}",
            required="a size for every axis, the same as the model's where it has one",
            next_step="give `shapes`",
        )
    return sizes


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
