"""Weight-only formats: int8 and int4 in blocks (MatMulNBits), and fp16 storage."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.recipe import Format, RegionRecipe
from edgewise.forge.graph import Graph
from edgewise.forge.lower.builder import Builder
from edgewise.forge.lower.dynamic import smoothed
from edgewise.forge.parameters import Parameters, rows_of
from edgewise.forge.regions import Region
from edgewise.numerics.packing import pack_nbits

# Level 4 computes in int8; level 0 with 8 bits runs 15-32 times slower than fp32.
_ACCURACY_LEVEL = 4
_BITS = {Format.INT8_WEIGHT: 8, Format.INT4_WEIGHT: 4}


def write_weight_only(
    builder: Builder, graph: Graph, region: Region, plan: RegionRecipe, parameters: Parameters
) -> None:
    """Write a MatMul with a constant weight as MatMulNBits, and its bias as an Add."""
    if region.weight is None:
        raise ValueError(region.name)
    rows = parameters.floats.get(region.name)
    if rows is None:
        rows = rows_of(graph, region, graph.constants[region.weight])
    bits, block = _BITS[plan.format], plan.block or 32
    packed, scales, zero_points = pack_nbits(rows.T, bits=bits, block=block, asymmetric=bits == 4)
    name = f"{region.name}/weight_{bits}"
    inputs = [
        smoothed(builder, region, parameters),
        builder.constant(f"{name}_q", packed),
        builder.constant(f"{name}_scale", scales),
    ]
    if zero_points is not None:
        inputs.append(builder.constant(f"{name}_zero_point", zero_points))
    bias = parameters.biases.get(region.name)
    if bias is None and region.bias is not None:
        bias = graph.constants[region.bias]
    product = f"{region.name}/product" if bias is not None else region.raw_output if region.bounds else region.output
    attributes = {
        "K": rows.shape[1],
        "N": rows.shape[0],
        "bits": bits,
        "block_size": block,
        "accuracy_level": _ACCURACY_LEVEL,
    }
    builder.microsoft("MatMulNBits", inputs, [product], name=product, **attributes)
    if bias is not None:
        added = builder.constant(f"{region.name}/bias", bias.astype(np.float32))
        output = region.raw_output if region.bounds else region.output
        builder.node("Add", [product, added], [output], name=f"{region.name}/add_bias")
    if region.bounds:
        builder.copy(graph.nodes[region.nodes[-1]])


def write_half(builder: Builder, graph: Graph, region: Region) -> None:
    """Store a weight as fp16 and cast it back when the session loads: half the size, the same kernels."""
    if region.weight is None:
        raise ValueError(region.name)
    stored = builder.constant(f"{region.name}/weight_fp16", graph.constants[region.weight].astype(np.float16))
    builder.node("Cast", [stored], [f"{region.name}/weight"], name=f"{region.name}/cast", attributes={"to": 1})
    for index in region.nodes:
        node = graph.nodes[index]
        builder.copy(node, inputs=[f"{region.name}/weight" if name == region.weight else name for name in node.input])
