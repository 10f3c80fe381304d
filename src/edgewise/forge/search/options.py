"""What a recipe may be made of on a target: formats per region, and uniform recipes of one format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from msgspec import UNSET

from edgewise.contracts.recipe import Format, Granularity, RangeMethod, Recipe, RegionRecipe, Rounding, Signs
from edgewise.contracts.target import Target
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Kind, Region

Offers = dict[str, tuple[Format, ...]]
STATIC = (Format.INT8_STATIC, Format.INT16_STATIC)
WEIGHT_ONLY = (Format.INT8_WEIGHT, Format.INT4_WEIGHT)
_BLOCK = {Format.INT8_WEIGHT: 128, Format.INT4_WEIGHT: 32}
# Weights smaller than this are not worth a kernel of their own.
_SMALL_WEIGHT = 256


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a region's recipe that is not its format, and of the recipe that is not its regions."""

    range_method: RangeMethod = RangeMethod.MSE
    clip: Mapping[str, float] = {}
    """The share of its range that a tensor is given, for those that are not given all of it."""
    rounding: Rounding = Rounding.NEAREST
    bias_correction: bool = False
    smooth: Mapping[str, float] = {}
    """SmoothQuant's alpha by region."""
    signs: Signs = Signs.U8S8
    per_channel: bool = True
    equalise: bool = False
    """Whether the graph was equalised: a fact about it, kept in the recipe."""
    halved: tuple[str, ...] = ()
    """Regions whose weights are stored as fp16 where they stay floats."""
    seed: int = 0


def offered(graph: Graph, regions: tuple[Region, ...], target: Target) -> dict[str, tuple[Format, ...]]:
    """Return, by region, the formats besides fp32 that its kind has kernels for and the target names."""
    return {
        region.name: tuple(form for form in region.formats if form is not Format.FP32 and form in target.formats)
        for region in regions
        if _worth_it(graph, region)
    }


def halvable(graph: Graph, regions: tuple[Region, ...]) -> tuple[str, ...]:
    """Return the regions whose weights can be stored as fp16: on every target they are cast back as a model loads."""
    weighted = (region for region in regions if region.weight is not None and Format.FP16 in region.formats)
    return tuple(region.name for region in weighted if _worth_it(graph, region) and _in_half(graph, region))


def is_convolutional(graph: Graph, regions: tuple[Region, ...]) -> bool:
    """Say whether at least half of the weights are those of convolutions, and not of products."""
    weights = [(region.kind is Kind.CONV, graph.constants[region.weight].size) for region in regions if region.weight]
    return sum(size if conv else -size for conv, size in weights) >= 0


def direct(graph: Graph, regions: tuple[Region, ...], offers: Mapping[str, tuple[Format, ...]]) -> Offers:
    """Return the one integer format of each region that is most often right; all offers where there is none.

    Everything takes static int8 where it can, unless the model is a transformer or of its kind, whose outliers a fixed
    range would cut: then products take dynamic int8.
    """
    static_everywhere = is_convolutional(graph, regions)
    kept: Offers = {}
    for region in regions:
        static = static_everywhere or region.kind is Kind.CONV
        wanted = (Format.INT8_STATIC, Format.INT8_DYNAMIC) if static else (Format.INT8_DYNAMIC,)
        first = next((form for form in wanted if form in offers.get(region.name, ())), None)
        if first is not None:
            kept[region.name] = (first,)
    return kept if has_weights(regions, kept) else dict(offers)


def uniform(
    regions: tuple[Region, ...], offers: Mapping[str, tuple[Format, ...]], form: Format, style: Style, *, name: str
) -> Recipe:
    """Return the recipe that gives `form` to every region that offers it."""
    placement = {region.name: form for region in regions if form in offers.get(region.name, ())}
    return placed(placement, style, name=name)


def placed(placement: Mapping[str, Format], style: Style, *, name: str) -> Recipe:
    """Return the recipe of a placement in one style; what is stored as fp32 is left out."""
    forms = dict(placement)
    forms |= {region: Format.FP16 for region in style.halved if forms.get(region, Format.FP32) is Format.FP32}
    return Recipe(
        name=name,
        regions=tuple(_region(region, form, style) for region, form in forms.items() if form is not Format.FP32),
        signs=style.signs,
        equalise=style.equalise,
        clip=dict(style.clip) or UNSET,
        seed=style.seed,
    )


def formats_in(offers: Mapping[str, tuple[Format, ...]]) -> tuple[Format, ...]:
    """Return all formats that some region offers, in the order of Format."""
    present = {form for forms in offers.values() for form in forms}
    return tuple(form for form in Format if form in present)


def has_weights(regions: Iterable[Region], names: Iterable[str]) -> bool:
    """Say whether any of the named regions has weights: without one there is nothing to quantize for."""
    wanted = set(names)
    return any(region.weight is not None or region.kind is Kind.LSTM for region in regions if region.name in wanted)


def _region(name: str, form: Format, style: Style) -> RegionRecipe:
    granularity = Granularity.CHANNEL if style.per_channel else Granularity.TENSOR
    return RegionRecipe(
        region=name,
        format=form,
        granularity=Granularity.BLOCK if form in WEIGHT_ONLY else granularity,
        range_method=style.range_method,
        rounding=style.rounding if form in (*STATIC, Format.INT8_DYNAMIC) else Rounding.NEAREST,
        block=_BLOCK.get(form, 0),
        smooth_alpha=style.smooth.get(name) if form is Format.INT8_DYNAMIC else None,
        bias_correction=style.bias_correction and form in STATIC,
    )


def _in_half(graph: Graph, region: Region) -> bool:
    weight = graph.constants[region.weight or ""]
    return float(np.abs(weight).max(initial=0.0)) <= float(np.finfo(np.float16).max)


def _worth_it(graph: Graph, region: Region) -> bool:
    if region.kind is Kind.FLOAT:
        return False
    if region.weight is None:
        return True
    return graph.constants[region.weight].size >= _SMALL_WEIGHT or region.kind is Kind.CONV
