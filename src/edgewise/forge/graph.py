"""A read-only view of a normalised ONNX graph: who makes and who reads each tensor."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[Any]


class Graph:
    """Lookups over one ModelProto. The model itself is never changed through this class."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Wrap `model`, whose graph must be in topological order."""
        self.model = model
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(model.graph.node)

    @cached_property
    def producers(self) -> dict[str, int]:
        """Index of the node that writes each tensor."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, tuple[int, ...]]:
        """Indices of the nodes that read each tensor, in graph order, each once."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys([*node.input, *captured(node)]):
                if name:
                    found[name].append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    @cached_property
    def constants(self) -> dict[str, Array]:
        """Initializers and the values of Constant nodes, by tensor name."""
        values = {each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        return values

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs, initializers left out."""
        initial = {each.name for each in self.model.graph.initializer}
        return tuple(each.name for each in self.model.graph.input if each.name not in initial)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(each.name for each in self.model.graph.output)

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes that the model states or that shape inference found; None is a dynamic axis."""
        graph = self.model.graph
        found: dict[str, tuple[int | None, ...]] = {name: value.shape for name, value in self.constants.items()}
        for info in (*graph.value_info, *graph.input, *graph.output):
            if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
                found[info.name] = tuple(
                    axis.dim_value if axis.HasField("dim_value") else None for axis in info.type.tensor_type.shape.dim
                )
        return found

    @cached_property
    def float_tensors(self) -> frozenset[str]:
        """Names of the activations known to be float32."""
        graph = self.model.graph
        return frozenset(
            info.name
            for info in (*graph.value_info, *graph.input, *graph.output)
            if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        )

    def sole_consumer(self, tensor: str) -> int | None:
        """Return the only reader of a tensor that is not a model output, else None."""
        readers = self.consumers.get(tensor, ())
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def scalar(self, name: str) -> float | None:
        """Return the value of a constant with one element, else None."""
        value = self.constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return a node's attribute as a Python value, or `default`."""
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


def clip_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Return the bounds of a Relu or of a Clip with constant limits, else None."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for position, key in ((1, "min"), (2, "max")):
        if len(node.input) > position and node.input[position]:
            value = graph.scalar(node.input[position])
            if value is None:
                return None
            bounds[position - 1] = value
        else:
            bounds[position - 1] = float(attribute(node, key, bounds[position - 1]))
    return bounds[0], bounds[1]


def captured(node: onnx.NodeProto) -> list[str]:
    """Return the outer tensors that a node's subgraphs read (If, Loop, Scan)."""
    names: list[str] = []
    for each in node.attribute:
        for subgraph in [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs:
            inner = {name for child in subgraph.node for name in child.output}
            inner |= {value.name for value in subgraph.initializer} | {value.name for value in subgraph.input}
            for child in subgraph.node:
                names += [name for name in (*child.input, *captured(child)) if name and name not in inner]
            names += [value.name for value in subgraph.output if value.name not in inner]
    return names
