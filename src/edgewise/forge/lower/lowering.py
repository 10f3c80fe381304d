"""Write a recipe into a graph: what the runtime fuses, not what a textbook draws."""

from __future__ import annotations

import onnx

from edgewise.contracts.recipe import Format, Recipe, RegionRecipe
from edgewise.errors import ModelError
from edgewise.forge.graph import Graph
from edgewise.forge.lower.activations import silus_behind_integers
from edgewise.forge.lower.builder import Builder
from edgewise.forge.lower.dynamic import write_dynamic, write_dynamic_lstm
from edgewise.forge.lower.static import StaticWriter
from edgewise.forge.lower.weight_only import write_half, write_weight_only
from edgewise.forge.parameters import Parameters, from_rows
from edgewise.forge.regions import Kind, Region

STATIC = frozenset({Format.INT8_STATIC, Format.INT16_STATIC})


def lower(graph: Graph, regions: tuple[Region, ...], recipe: Recipe, parameters: Parameters) -> onnx.ModelProto:
    """Return the model that computes every region as the recipe says.

    Raises ModelError where a region is given a format its kind has no kernel for.
    """
    plans = {each.region: each for each in recipe.regions}
    builder = Builder(graph)
    integers = _static_regions(regions, plans)
    static = StaticWriter(builder, graph, regions, integers, parameters)
    static.write_inputs()
    silus = silus_behind_integers(graph, regions, frozenset(plans), integers)
    for region in regions:
        if region.name in silus.sigmoids:
            continue  # it is part of the SiLU that follows
        plan = plans.get(region.name)
        form = plan.format if plan else Format.FP32
        if form not in region.formats:
            raise ModelError(
                f"region {region.name!r} ({region.op}) has no {form} kernel",
                required=f"one of {', '.join(region.formats)}",
                next_step="leave this region in fp32",
            )
        if form in STATIC:
            static.write(region)
        elif region.name in silus.inputs:
            builder.microsoft("QuickGelu", [silus.inputs[region.name]], [region.output], name=region.output, alpha=1.0)
            static.after_float(region)
        else:
            _write_other(builder, graph, region, plan, parameters)
            static.after_float(region)
    wide = any(plan.format is Format.INT16_STATIC for plan in plans.values())
    return builder.finish(opset=21 if wide else None)


def _static_regions(regions: tuple[Region, ...], plans: dict[str, RegionRecipe]) -> frozenset[str]:
    return frozenset(
        region.name for region in regions if (plan := plans.get(region.name)) is not None and plan.format in STATIC
    )


def _write_other(
    builder: Builder, graph: Graph, region: Region, plan: RegionRecipe | None, parameters: Parameters
) -> None:
    form = plan.format if plan else Format.FP32
    if plan is None or form is Format.FP32:
        _write_float(builder, graph, region, parameters)
    elif form is Format.FP16:
        write_half(builder, graph, region)
    elif form is Format.INT8_DYNAMIC and region.kind is Kind.LSTM:
        write_dynamic_lstm(builder, graph, region)
    elif form is Format.INT8_DYNAMIC:
        write_dynamic(builder, graph, region, parameters)
    else:
        write_weight_only(builder, graph, region, plan, parameters)


def _write_float(builder: Builder, graph: Graph, region: Region, parameters: Parameters) -> None:
    changed = {}
    if region.weight is not None and region.name in parameters.floats:
        rows = parameters.floats[region.name]
        changed[region.weight] = builder.constant(f"{region.name}/weight", from_rows(graph, region, rows))
    if region.bias is not None and region.name in parameters.biases and region.name in parameters.floats:
        changed[region.bias] = builder.constant(f"{region.name}/bias", parameters.biases[region.name])
    for index in region.nodes:
        node = graph.nodes[index]
        builder.copy(node, inputs=[changed.get(name, name) for name in node.input])
