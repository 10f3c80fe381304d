"""A model's ONNX graph run in torch, so that its gradient can be taken (extra `train`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from edgewise.errors import MissingExtraError
from edgewise.forge.graph import Graph
from edgewise.forge.tasks.base import Array
from edgewise.forge.verify.adversarial_ops import OPERATORS, Tensor
from edgewise.runtimes.base import require


class UnsupportedOperatorError(Exception):
    """The graph holds an operator that has no counterpart here; the message names it."""


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute on one thread, and on as many as before afterwards; without torch nothing is done.

    Graphs of one sample leave a pool of threads nothing to share: it waits in a loop, and costs ten times the work.
    """
    try:
        torch: ModuleType = require("torch", extra="train")
    except MissingExtraError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Surrogate:
    """One graph with its constants in torch."""

    def __init__(self, path: Path) -> None:
        """Read a model; raises UnsupportedOperatorError, and MissingExtraError without torch."""
        self._torch: ModuleType = require("torch", extra="train")
        graph = Graph(onnx.load(path))
        unknown = sorted({node.op_type for node in graph.nodes} - OPERATORS.keys() - {"Constant"})
        if unknown:
            raise UnsupportedOperatorError(", ".join(unknown))
        self._nodes = [node for node in graph.nodes if node.op_type != "Constant"]
        self._output = graph.outputs[0]
        self._constants = {name: self._torch.from_numpy(np.array(value)) for name, value in graph.constants.items()}

    @property
    def torch(self) -> ModuleType:
        """The library."""
        return self._torch

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """Return the first output `[1, classes]` for the input `name`; raises UnsupportedOperatorError."""
        values: dict[str, Any] = {**self._constants, name: x}
        for node in self._nodes:
            given = [values[each] if each else None for each in node.input]
            try:
                values[node.output[0]] = OPERATORS[node.op_type](self._torch, node, given)
            except (NotImplementedError, KeyError) as error:
                raise UnsupportedOperatorError(f"{node.op_type} ({error})") from error
        return values[self._output].reshape(1, -1)

    def log_probabilities(self, name: str, x: Tensor) -> Tensor:
        """Return log p `[1, classes]`, whether the model gives logits or probabilities."""
        scores = self(name, x)
        flat = scores.detach()
        if bool((flat >= 0).all()) and abs(float(flat.sum()) - 1) < 0.05:
            return self._torch.log(self._torch.clamp(scores, min=1e-12))
        return self._torch.log_softmax(scores, dim=-1)

    def run(self, name: str, x: Array) -> Array:
        """Return the first output for an array, without a gradient."""
        with self._torch.no_grad():
            return np.asarray(self(name, self._torch.from_numpy(np.asarray(x, np.float32))).numpy())
