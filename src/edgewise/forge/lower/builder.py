"""Collects nodes and initializers of a graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgewise.errors import ModelError
from edgewise.forge.graph import Graph

_MS_DOMAIN = "com.microsoft"


class Builder:
    """Nodes in order, initializers by name; `finish` makes a model with the inputs and outputs of another."""

    def __init__(self, graph: Graph) -> None:
        """Start empty; constants of `graph` are taken over as nodes come to read them."""
        self.source = graph
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._opset = next(each.version for each in graph.model.opset_import if each.domain in ("", "ai.onnx"))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer; the same name twice must mean the same value."""
        if name not in self._initializers:
            # ascontiguousarray would turn a 0-d array into [1], which blocks QLinearAdd (ORT fusion rules).
            self._initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str,
        domain: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Add a node."""
        self.nodes.append(
            helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **(attributes or {}))
        )

    def microsoft(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str, **attributes: Any
    ) -> None:
        """Add a node of ONNX Runtime's contributed operators."""
        self.node(op, inputs, outputs, name=name, domain=_MS_DOMAIN, attributes=attributes)

    def copy(
        self, node: onnx.NodeProto, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> None:
        """Add a copy of a node, with other inputs or outputs where given."""
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        clone.name = (outputs or node.output)[0]
        if inputs is not None:
            del clone.input[:]
            clone.input.extend(inputs)
        if outputs is not None:
            del clone.output[:]
            clone.output.extend(outputs)
        self.nodes.append(clone)

    def finish(self, *, opset: int | None = None) -> onnx.ModelProto:
        """Return the model: needed constants of the source are added, value infos are left to the runtime."""
        source = self.source
        made = {name for node in self.nodes for name in node.output}
        wanted = {name for node in self.nodes for name in _reads(node)} | set(source.outputs)
        initializers = {each.name: each for each in source.model.graph.initializer}
        for name in sorted(wanted - made - set(self._initializers) - set(source.inputs)):
            if name in initializers:
                self._initializers[name] = initializers[name]
            elif name in source.constants:
                self.constant(name, source.constants[name])
            elif name:
                raise ModelError(f"tensor {name!r} is read but never written", next_step="report this model")
        graph = helper.make_graph(
            self.nodes,
            source.model.graph.name or "edgewise",
            [each for each in source.model.graph.input if each.name in source.inputs],
            list(source.model.graph.output),
            list(self._initializers.values()),
        )
        domains = {"": max(opset or 0, self._opset)}
        for each in source.model.opset_import:
            if each.domain not in ("", "ai.onnx"):
                domains[each.domain] = each.version
        if any(node.domain == _MS_DOMAIN for node in self.nodes):
            domains[_MS_DOMAIN] = 1
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()]
        )
        model.ir_version = max(8, source.model.ir_version) if domains[""] < 21 else 10
        model.producer_name = "edgewise"
        return model


def _reads(node: onnx.NodeProto) -> list[str]:
    names = [name for name in node.input if name]
    for each in node.attribute:
        for subgraph in [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs:
            inner = {name for child in subgraph.node for name in child.output}
            inner |= {value.name for value in subgraph.initializer} | {value.name for value in subgraph.input}
            names += [name for child in subgraph.node for name in _reads(child) if name not in inner]
            names += [value.name for value in subgraph.output if value.name not in inner]
    return names
