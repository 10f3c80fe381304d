"""Tie the tensors of a variant to those of fp32: the points at which the two can be compared."""

from __future__ import annotations

import msgspec

from edgewise.forge.graph import Graph
from edgewise.forge.regions import Region
from edgewise.forge.verify.quantized import is_constant, meanings, read_grids, stem, written_grids
from edgewise.numerics.grid import Grid


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of both models: `variant` is read as integers on `grid`, or as floats where there is none."""

    reference: str
    variant: str
    grid: Grid | None
    region: Region | None
    """What writes it in fp32; None for an input of the model."""

    @property
    def op(self) -> str:
        """The operator behind it."""
        return self.region.op if self.region else "input"


def points(reference: Graph, regions: tuple[Region, ...], variant: Graph) -> tuple[Point, ...]:
    """Return the points that names tie together, each fp32 tensor once, in the order of fp32's graph.

    Where the variant leaves a Relu or Clip to the saturation of a grid, the tensor before it in name is the one
    behind it in meaning.
    """
    integers = _integers(variant)
    wanted = _wanted(reference, regions)
    root = meanings(variant)
    groups: dict[str, list[str]] = {name: [name] for name in variant.inputs}
    for name in root:
        groups.setdefault(root[name], []).append(name)
    claimed: dict[str, tuple[str, Grid | None]] = {}
    for members in groups.values():
        target = _target(members, wanted)
        if target is None or target in claimed:
            continue
        whole = next((name for name in members if name in integers), None)
        if whole is not None:
            claimed[target] = whole, integers[whole]
        elif target in members and target not in variant.inputs and not is_constant(variant, target):
            claimed[target] = target, None
    absorbed = {
        region.raw_output: region.output
        for region in regions
        if region.bounds is not None and region.raw_output in claimed and region.output not in claimed
    }
    found = {absorbed.get(name, name): held for name, held in claimed.items()}
    return tuple(
        Point(reference=name, variant=found[name][0], grid=found[name][1], region=region)
        for name, region in wanted.items()
        if name in found
    )


def _integers(variant: Graph) -> dict[str, Grid]:
    """Return the grids of integer activations as they are read, those of their writers where nobody reads them."""
    found = written_grids(variant)
    read = {tensor: grid for tensor, _, grid in reversed(list(read_grids(variant)))}
    return {name: read.get(name, grid) for name, grid in found.items()} | {
        name: grid for name, grid in read.items() if name in variant.producers
    }


def _wanted(reference: Graph, regions: tuple[Region, ...]) -> dict[str, Region | None]:
    """Return the tensors that regions write, before and after an absorbed Relu, and the float inputs."""
    found: dict[str, Region | None] = {name: None for name in reference.inputs if name in reference.float_tensors}
    for region in regions:
        for name in (region.raw_output, region.output):
            if name in reference.producers and name in reference.float_tensors:
                found[name] = region
    return found


def _target(members: list[str], wanted: dict[str, Region | None]) -> str | None:
    return next(
        (name for name in members if name in wanted),
        next((stem(name) for name in members if stem(name) in wanted), None),
    )
