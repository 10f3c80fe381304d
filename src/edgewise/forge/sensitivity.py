"""Sensitivity: what each region alone costs at the model's output, measured on the shipping runtime.

SQNR_l = 10 log10(sum y^2 / sum (y - y_l)^2) with only region l quantized, and the task's own
divergence. A convolution and the activation it feeds alone (a SiLU, say) are one unit: the runtime
fuses them, and to part them would measure borders that nobody would ship.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgewise.contracts.recipe import Format, Recipe
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Kind, Region


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """One unit quantized alone. `divergence` is the task's mean distance to fp32 a sample."""

    region: str
    members: tuple[str, ...]
    divergence: float
    sqnr_db: float | None


def units(graph: Graph, regions: tuple[Region, ...]) -> tuple[tuple[Region, ...], ...]:
    """Group regions with weights with the elementwise regions that only follow them.

    Elementwise regions that no unit takes (residual adds, concats) are units of their own; ops that
    only move values never are, because they add no error.
    """
    writer = {region.output: region for region in regions}
    leader: dict[str, str] = {}
    groups: dict[str, list[Region]] = {}
    for region in regions:
        if region.kind in (Kind.FLOAT, Kind.PASS):
            continue
        sources = {leader.get(name) for name in region.inputs}
        owner = next(iter(sources)) if len(sources) == 1 else None
        alone = region.kind is Kind.ELEMENTWISE and owner is not None and _local(graph, region, writer)
        head = owner if alone and owner is not None else region.name
        leader[region.output] = head
        groups.setdefault(head, []).append(region)
    return tuple(tuple(group) for group in groups.values())


def alone(recipe: Recipe, members: Sequence[Region]) -> Recipe:
    """Return a recipe in which only `members` are quantized, as `recipe` would."""
    names = {region.name for region in members}
    kept = tuple(each for each in recipe.regions if each.region in names and each.format is not Format.FP32)
    return msgspec.structs.replace(recipe, name=f"only {members[0].name}", regions=kept)


def _local(graph: Graph, region: Region, writer: dict[str, Region]) -> bool:
    """Say whether all inputs of an elementwise region come from its unit and go nowhere else."""
    if region.op not in ("Sigmoid", "Mul", "LeakyRelu"):
        return False
    for name in region.inputs:
        source = writer.get(name)
        if source is None or len(graph.consumers.get(name, ())) > 2:
            return False
    return True
