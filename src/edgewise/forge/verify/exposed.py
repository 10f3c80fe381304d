"""Give a classifier's logits and penultimate features as outputs, besides what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnx

from edgewise.errors import EdgewiseError
from edgewise.forge.graph import Graph
from edgewise.runtimes.base import Runtime, Session

_LAYERS = frozenset({"Gemm", "MatMul", "Conv", "QGemm", "QLinearMatMul", "QLinearConv", "MatMulInteger",
                     "ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})  # fmt: skip
_ENDINGS = frozenset({"Softmax", "QLinearSoftmax"})
_STEPS = 24
"""So many nodes before the output are searched for the last layer."""


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """A session with more outputs; positions of the logits and of the features among them (None: not found)."""

    session: Session
    logits: int
    features: int | None


def expose(path: Path, runtime: Runtime, *, threads: int) -> Exposed | None:
    """Load a model with its logits (before a last Softmax) and the input of its last layer as outputs.

    The first output stays where it is. None where the file cannot be changed so, or the runtime refuses it.
    """
    try:
        model = onnx.load(path)
        logits, features = last_tensors(Graph(model))
        names = [each.name for each in model.graph.output]
        for name in (logits, features):
            if name is not None and name not in names:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
                names.append(name)
        session = runtime.load(model.SerializeToString(), threads=threads)
    except (EdgewiseError, OSError, ValueError):  # external data, or a kernel that exists only when fused
        return None
    return Exposed(
        session=session,
        logits=names.index(logits) if logits is not None else 0,
        features=names.index(features) if features is not None else None,
    )


def last_tensors(graph: Graph) -> tuple[str | None, str | None]:
    """Return the tensor before a last Softmax (None without one), and the data input of the last layer."""
    logits, at = None, graph.outputs[0]
    for _ in range(_STEPS):
        maker = graph.producers.get(at)
        if maker is None:
            return logits, None
        node = graph.nodes[maker]
        data = _data_inputs(graph, node.input)
        if node.op_type in _ENDINGS and logits is None and data:
            logits = data[0]
        if node.op_type in _LAYERS:
            return logits, data[0] if data else None
        if not data:
            return logits, None
        at = data[0]
    return logits, None


def _data_inputs(graph: Graph, names: Sequence[str]) -> list[str]:
    """Return the inputs that depend on the model's own: no constants, nor what is computed from them alone."""
    return [name for name in names if name and (name in graph.inputs or not _is_constant(graph, name, _STEPS))]


def _is_constant(graph: Graph, name: str, depth: int) -> bool:
    if name in graph.constants:
        return True
    maker = graph.producers.get(name)
    if maker is None or depth == 0:
        return False
    return all(_is_constant(graph, each, depth - 1) for each in graph.nodes[maker].input if each)
