"""Static int8 and int16 as QuantizeLinear / DequantizeLinear pairs that ONNX Runtime fuses.

Its rules, found by experiment (docs/explanation/fusion.md): scales and zero points are 0-d for
activations; the bias is int32 at scale_x * scale_w; a Relu or Clip is expressed by the range of the
output's grid and not kept as a node; ops that move values carry one grid through.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import ModelError
from edgewise.forge.graph import Graph
from edgewise.forge.lower.builder import Builder
from edgewise.forge.parameters import Parameters, from_rows, weight_axis
from edgewise.forge.regions import Kind, Region
from edgewise.numerics.grid import Grid

_INT32_LIMIT = 2**31 - 1


class StaticWriter:
    """Writes static regions, and the borders where a tensor goes from float to integers and back."""

    def __init__(
        self,
        builder: Builder,
        graph: Graph,
        regions: tuple[Region, ...],
        static: frozenset[str],
        parameters: Parameters,
    ) -> None:
        """Find out which tensors exist as integers, as floats, or as both."""
        self._builder = builder
        self._graph = graph
        self._parameters = parameters
        self._integer_readers = {name for region in regions if region.name in static for name in region.inputs}
        integer_nodes = {index for region in regions if region.name in static for index in region.nodes}
        self._float_readers = {
            name for name, indices in graph.consumers.items() if any(index not in integer_nodes for index in indices)
        } | set(graph.outputs)
        self._quantized: set[str] = set()

    def write_inputs(self) -> None:
        """Quantize the model's inputs that static regions read."""
        for name in self._graph.inputs:
            if name in self._integer_readers:
                self._quantize(name, name)

    def after_float(self, region: Region) -> None:
        """Quantize what a float region wrote, where a static region reads it."""
        for index in region.nodes:
            for name in self._graph.nodes[index].output:
                if name in self._integer_readers:
                    self._quantize(name, name)

    def write(self, region: Region) -> None:
        """Write one static region and, where floats are read behind it, the way back."""
        if region.kind is Kind.MATMUL or (region.kind is Kind.GEMM and not self._reads_integers(region.output)):
            if self._grid(region.inputs[0]).dtype.itemsize == 1:
                self._write_matmul(region)
            else:
                self._write_wide_matmul(region)
            return
        raw = f"{region.output}/raw"
        node = self._graph.nodes[region.anchor]
        replaced = {name: self._integers_of(name) for name in region.inputs}
        inputs = [replaced.get(name, name) for name in node.input]
        if region.weight is not None:
            inputs[1] = self._weight(region)
        if region.weight is not None and self._bias(region) is not None:
            bias = self._integer_bias(region)
            inputs = [*inputs[:2], bias]
        if region.kind is Kind.PRODUCT and not self._reads_integers(region.output):
            self._builder.copy(node, inputs=inputs)
            return
        self._builder.copy(node, inputs=inputs, outputs=[raw])
        self._quantize(raw, region.output)
        if region.output in self._float_readers:
            self._dequantize(region.output, region.output)

    def _reads_integers(self, tensor: str) -> bool:
        return tensor in self._integer_readers

    def _grid(self, tensor: str) -> Grid:
        if tensor not in self._parameters.grids:
            raise ModelError(
                f"tensor {tensor!r} has no calibrated range",
                required="an activation seen during calibration",
                next_step="report this model",
            )
        return self._parameters.grids[tensor]

    def _grid_names(self, tensor: str) -> list[str]:
        grid = self._grid(tensor)
        return [
            self._builder.constant(f"{tensor}/scale", grid.scale),
            self._builder.constant(f"{tensor}/zero_point", grid.zero_point),
        ]

    def _quantize(self, source: str, tensor: str) -> None:
        if tensor in self._quantized:
            return
        self._quantized.add(tensor)
        self._builder.node(
            "QuantizeLinear", [source, *self._grid_names(tensor)], [f"{tensor}/q"], name=f"{tensor}/quantize"
        )

    def _dequantize(self, tensor: str, output: str) -> None:
        self._builder.node(
            "DequantizeLinear", [f"{tensor}/q", *self._grid_names(tensor)], [output], name=f"{output}/dequantize"
        )

    def _integers_of(self, tensor: str) -> str:
        """Return the DequantizeLinear output a static region reads; one node per tensor serves all of them."""
        name = f"{tensor}/dq"
        if name not in self._quantized:
            self._quantized.add(name)
            self._dequantize(tensor, name)
        return name

    def _weight(self, region: Region) -> str:
        """Write the int8 weight and its DequantizeLinear."""
        values = self._parameters.weights[region.name]
        name = f"{region.name}/weight"
        per_channel = values.scale.size > 1
        scale = values.scale if per_channel else values.scale.reshape(())
        inputs = [
            self._builder.constant(f"{name}_q", from_rows(self._graph, region, values.values)),
            self._builder.constant(f"{name}_scale", scale.astype(np.float32)),
            self._builder.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
        axis = {"axis": weight_axis(self._graph, region)} if per_channel else {}
        self._builder.node("DequantizeLinear", inputs, [name], name=f"{name}/dequantize", attributes=axis)
        return name

    def _bias(self, region: Region) -> NDArray[np.float32] | None:
        if region.name in self._parameters.biases:
            return self._parameters.biases[region.name]
        return self._graph.constants[region.bias] if region.bias else None

    def _integer_bias(self, region: Region) -> str:
        """Write the bias as int32 at scale_x * scale_w, the accumulator's own grid."""
        bias = self._bias(region)
        if bias is None:
            raise ValueError(region.name)
        scale = (self._grid(region.inputs[0]).scale * self._parameters.weights[region.name].scale).astype(np.float32)
        scale = np.broadcast_to(scale, bias.shape) if scale.size > 1 else scale.reshape(())
        values = np.clip(np.rint(bias / scale.astype(np.float64)), -_INT32_LIMIT, _INT32_LIMIT).astype(np.int32)
        name = f"{region.name}/bias"
        inputs = [
            self._builder.constant(f"{name}_q", values),
            self._builder.constant(f"{name}_scale", scale),
            self._builder.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
        ]
        axis = {"axis": 0} if scale.ndim else {}
        self._builder.node("DequantizeLinear", inputs, [name], name=f"{name}/dequantize", attributes=axis)
        return name

    def _write_matmul(self, region: Region) -> None:
        """Write a MatMul with a float output: one MatMulIntegerToFloat, bias inside, nothing to round twice."""
        tensor = region.inputs[0]
        values = self._parameters.weights[region.name]
        name = f"{region.name}/weight"
        rows = values.values.T if values.values.ndim == 2 else values.values
        scale = values.scale if values.scale.size > 1 else values.scale.reshape(())
        bias = self._bias(region)
        scale_x, zero_x = self._grid_names(tensor)
        inputs = [
            f"{tensor}/q",
            self._builder.constant(f"{name}_q", np.ascontiguousarray(rows)),
            scale_x,
            self._builder.constant(f"{name}_scale", scale),
            zero_x,
            self._builder.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
        if bias is not None:
            inputs.append(self._builder.constant(f"{region.name}/bias", bias.astype(np.float32)))
        output = region.raw_output if region.bounds else region.output
        self._builder.microsoft("MatMulIntegerToFloat", inputs, [output], name=output)
        if region.bounds:
            self._builder.copy(self._graph.nodes[region.nodes[-1]])
        if self._reads_integers(region.output):
            self._quantize(region.output, region.output)

    def _write_wide_matmul(self, region: Region) -> None:
        """Write a MatMul of 16-bit activations: MatMulIntegerToFloat takes 8 bits only."""
        bias = self._bias(region)
        output = region.raw_output if region.bounds else region.output
        inputs = [self._integers_of(region.inputs[0]), self._weight(region)]
        node = self._graph.nodes[region.anchor]
        added = [] if bias is None else [self._builder.constant(f"{region.name}/bias", bias.astype(np.float32))]
        if region.kind is Kind.GEMM:
            self._builder.copy(node, inputs=[*inputs, *added], outputs=[output])
        elif added:
            product = f"{region.name}/product"
            self._builder.copy(node, inputs=inputs, outputs=[product])
            self._builder.node("Add", [product, *added], [output], name=output)
        else:
            self._builder.copy(node, inputs=inputs, outputs=[output])
        if region.bounds:
            self._builder.copy(self._graph.nodes[region.nodes[-1]])
        if self._reads_integers(region.output):
            self._quantize(region.output, region.output)
