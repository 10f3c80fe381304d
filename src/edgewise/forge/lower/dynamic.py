"""Dynamic int8: the input's range is taken from each input at run time (DynamicQuantizeLinear)."""

from __future__ import annotations

import numpy as np

from edgewise.forge.graph import Graph, attribute
from edgewise.forge.lower.builder import Builder
from edgewise.forge.parameters import Parameters
from edgewise.forge.regions import Kind, Region
from edgewise.numerics.grid import quantize, weight_grid


def smoothed(builder: Builder, region: Region, parameters: Parameters) -> str:
    """Return the region's input, divided channel by channel where SmoothQuant asks for it.

    Regions that read one tensor with one vector share the Mul (and then the DynamicQuantizeLinear).
    """
    tensor = region.inputs[0]
    divisor = parameters.smooth.get(region.name)
    if divisor is None:
        return tensor
    shared = f"{tensor}/smooth_{np.abs(divisor).sum():.6e}"
    if not any(node.output[0] == shared for node in builder.nodes):
        factor = builder.constant(f"{shared}_factor", (1.0 / divisor).astype(np.float32))
        builder.node("Mul", [tensor, factor], [shared], name=shared)
    return shared


def write_dynamic(builder: Builder, graph: Graph, region: Region, parameters: Parameters) -> None:
    """Write DynamicQuantizeLinear + MatMulIntegerToFloat; the first is shared by all readers of the tensor."""
    source = smoothed(builder, region, parameters)
    quantized = [f"{source}/dynamic_q", f"{source}/dynamic_scale", f"{source}/dynamic_zero_point"]
    if not any(node.output[0] == quantized[0] for node in builder.nodes):
        builder.node("DynamicQuantizeLinear", [source], quantized, name=f"{source}/dynamic_quantize")
    values = parameters.weights[region.name]
    scale = values.scale if values.scale.size > 1 else values.scale.reshape(())
    name = f"{region.name}/weight"
    inputs = [
        quantized[0],
        builder.constant(f"{name}_q", np.ascontiguousarray(values.values.T)),
        quantized[1],
        builder.constant(f"{name}_scale", scale),
        quantized[2],
        builder.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
    ]
    bias = parameters.biases.get(region.name)
    if bias is None and region.bias is not None:
        bias = graph.constants[region.bias]
    if bias is not None:
        inputs.append(builder.constant(f"{region.name}/bias", bias.astype(np.float32)))
    output = region.raw_output if region.bounds else region.output
    builder.microsoft("MatMulIntegerToFloat", inputs, [output], name=output)
    if region.bounds:
        builder.copy(graph.nodes[region.nodes[-1]])


def write_dynamic_lstm(builder: Builder, graph: Graph, region: Region) -> None:
    """Write an LSTM as DynamicQuantizeLSTM, weights int8 per gate column."""
    if region.kind is not Kind.LSTM:
        raise ValueError(region.name)
    node = graph.nodes[region.anchor]
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    tail = []
    for position, label in ((1, "w"), (2, "r")):
        # [directions, 4 hidden, in] -> [directions, in, 4 hidden], as the contributed operator stores it.
        weight = graph.constants[node.input[position]].transpose(0, 2, 1).astype(np.float32)
        scale = np.stack([weight_grid(np.abs(each).max(axis=0), axis=1).scale for each in weight])
        values = np.stack([quantize(each, weight_grid(np.abs(each).max(axis=0), axis=1)) for each in weight]).astype(
            np.int8
        )
        inputs[position] = builder.constant(f"{region.name}/{label}_q", values)
        tail += [
            builder.constant(f"{region.name}/{label}_scale", scale.astype(np.float32)),
            builder.constant(f"{region.name}/{label}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
    keep = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget")
    attributes = {key: attribute(node, key) for key in keep if attribute(node, key) is not None}
    builder.microsoft("DynamicQuantizeLSTM", [*inputs, *tail], list(node.output), name=region.name, **attributes)
