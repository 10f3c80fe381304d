"""From calibration and a recipe to activation grids: one grid per tensor, shared where values only move."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgewise.contracts.recipe import RangeMethod, Signs
from edgewise.forge.calibrate import Calibration
from edgewise.forge.regions import Kind, Region
from edgewise.numerics.grid import Grid, activation_grid
from edgewise.numerics.ranges import choose

RangeKey = tuple[str, RangeMethod, int, bool]
"""Tensor, method, bits, signed."""


def shared_grids(regions: tuple[Region, ...]) -> dict[str, str]:
    """Map each tensor to the one whose grid it takes: what a moving op writes lies on its input's grid."""
    root: dict[str, str] = {}
    for region in regions:
        if region.kind is Kind.PASS:
            source = region.inputs[0]
            root[region.output] = root.get(source, source)
    return root


def activation_range(
    calibration: Calibration, tensor: str, method: RangeMethod, *, bits: int, signed: bool
) -> tuple[float, float]:
    """Return the range of one tensor by one method. KeyError where the tensor was not calibrated."""
    return choose(calibration.histograms[tensor], method, bits=bits, signed=signed)


def grids(
    calibration: Calibration,
    regions: tuple[Region, ...],
    methods: Mapping[str, RangeMethod],
    *,
    default: RangeMethod,
    signs: Signs,
    bits: int = 8,
    clip: Mapping[str, float] = MappingProxyType({}),
    known: dict[RangeKey, tuple[float, float]] | None = None,
) -> dict[str, Grid]:
    """Return the grid of every calibrated activation.

    `methods` gives the range method by tensor, `default` that of the others; `clip` is the share of its range that a
    tensor is given. Bounds of an absorbed Relu or Clip limit the range, so that saturation does their work. `known` is
    filled with what was found.
    """
    known = {} if known is None else known
    signed = signs is Signs.S8S8
    bounds = {region.output: region.bounds for region in regions if region.bounds is not None}
    roots = shared_grids(regions)
    made: dict[str, Grid] = {}
    for tensor in calibration.histograms:
        root = roots.get(tensor, tensor)
        if root not in made:
            key = (root, methods.get(root, default), bits, signed)
            if key not in known:
                known[key] = activation_range(calibration, root, key[1], bits=bits, signed=signed)
            low, high = (end * clip.get(root, 1.0) for end in known[key])
            floor, ceiling = bounds.get(root, (float("-inf"), float("inf")))
            made[root] = activation_grid(max(low, floor), min(high, ceiling), bits=bits, signed=signed)
        made[tensor] = made[root]
    return made
