"""Quantize the weights of a recipe's regions: scales per channel or tensor, rounding, corrected biases."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.recipe import Format, Granularity, RangeMethod, Recipe, RegionRecipe, Rounding
from edgewise.forge.calibrate import Calibration
from edgewise.forge.graph import Graph
from edgewise.forge.parameters import FloatArray, Parameters, WeightValues, rows_of
from edgewise.forge.ranges import RangeKey, grids
from edgewise.forge.regions import Region
from edgewise.numerics.grid import Grid
from edgewise.numerics.weight_ranges import weight_mse

_LEVELS = 127
# int32 biases must not saturate: |b| / (s_x * s_w) stays below this (a quarter of 2**31 leaves room for the sum).
_BIAS_LIMIT = 2.0**29
INTEGER_WEIGHTS = frozenset({Format.INT8_STATIC, Format.INT16_STATIC, Format.INT8_DYNAMIC})


class Known(msgspec.Struct, kw_only=True):
    """What building one recipe worked out for the next, of the same graph and calibration.

    To find ranges costs more than all the rest of a build, and a search builds hundreds.
    """

    peaks: dict[tuple[str, float | None], FloatArray] = {}
    """The magnitude each row of a region's weights is to represent, by region and the alpha it was smoothed with."""
    ranges: dict[RangeKey, tuple[float, float]] = {}


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier steps worked out, by region; a recipe says which of it is used."""

    rounded: Mapping[str, WeightValues] = {}
    """Reconstructed weights (GPTQ) for static formats."""
    rounded_dynamic: Mapping[str, WeightValues] = {}
    """The same for dynamic int8, whose inputs have no grid but may be smoothed."""
    bias_shift: Mapping[str, FloatArray] = {}
    """Added to a bias so that the mean of the output is that of fp32, for weights rounded to nearest."""
    rounded_bias_shift: Mapping[str, FloatArray] = {}
    """The same for reconstructed weights."""
    smooth: Mapping[str, FloatArray] = {}
    """SmoothQuant divisors."""


def parameters_for(
    graph: Graph,
    regions: tuple[Region, ...],
    recipe: Recipe,
    calibration: Calibration,
    corrections: Corrections,
    known: Known | None = None,
) -> Parameters:
    """Return the numbers that `lower` writes for this recipe; `known` is filled for the next call."""
    known = Known() if known is None else known
    plans = {each.region: each for each in recipe.regions}
    activation_grids = _grids(regions, recipe, calibration, plans, known)
    weights: dict[str, WeightValues] = {}
    biases: dict[str, FloatArray] = {}
    floats: dict[str, FloatArray] = {}
    smooth: dict[str, FloatArray] = {}
    for region in regions:
        plan = plans.get(region.name)
        if plan is None or region.weight is None or plan.format is Format.FP32:
            continue
        rows = rows_of(graph, region, graph.constants[region.weight])
        if plan.smooth_alpha is not None and region.name in corrections.smooth:
            smooth[region.name] = corrections.smooth[region.name]
            rows = rows * smooth[region.name][None, :]
            floats[region.name] = rows
        if plan.format not in INTEGER_WEIGHTS:
            continue
        bias = graph.constants[region.bias].astype(np.float32) if region.bias else None
        dynamic = plan.format is Format.INT8_DYNAMIC
        reconstructed = corrections.rounded_dynamic if dynamic else corrections.rounded
        if plan.rounding is Rounding.GPTQ and region.name in reconstructed:
            values = reconstructed[region.name]
        else:
            scale_x = None if dynamic else activation_grids[region.inputs[0]].scale
            key = (region.name, plan.smooth_alpha if region.name in smooth else None)
            if key not in known.peaks:
                known.peaks[key] = weight_mse(rows, bits=8)
            values = quantize_rows(rows, weight_scale(known.peaks[key], plan, bias=bias, scale_x=scale_x))
        weights[region.name] = values
        shifts = corrections.rounded_bias_shift if plan.rounding is Rounding.GPTQ else corrections.bias_shift
        if plan.bias_correction and region.name in shifts:
            shift = shifts[region.name]
            biases[region.name] = (shift if bias is None else bias + shift).astype(np.float32)
    return Parameters(grids=activation_grids, weights=weights, biases=biases, smooth=smooth, floats=floats)


def weight_scale(
    largest: FloatArray, plan: RegionRecipe, *, bias: FloatArray | None, scale_x: NDArray[np.float32] | None
) -> FloatArray:
    """Return one scale per row, or one for all; wide enough that the bias fits int32 at scale_x * scale.

    `largest` is the magnitude that each row is to represent.
    """
    if plan.granularity is Granularity.TENSOR:
        largest = np.full_like(largest, largest.max())
    scale = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
    if bias is not None and scale_x is not None:
        scale = np.maximum(scale, np.abs(bias) / (_BIAS_LIMIT * scale_x)).astype(np.float32)
    return scale


def quantize_rows(rows: FloatArray, scale: FloatArray) -> WeightValues:
    """Round to nearest, ties to even, within -127..127."""
    values = np.clip(np.rint(rows / scale[:, None]), -_LEVELS, _LEVELS).astype(np.int8)
    return WeightValues(values=values, scale=scale)


def range_methods(regions: tuple[Region, ...], plans: Mapping[str, RegionRecipe]) -> dict[str, RangeMethod]:
    """Return, by activation, the method that its range is taken with: that of its writer, else of its first reader."""
    methods: dict[str, RangeMethod] = {}
    for region in regions:
        plan = plans.get(region.name)
        if plan is not None and plan.format in (Format.INT8_STATIC, Format.INT16_STATIC):
            methods[region.output] = plan.range_method
            for name in region.inputs:
                methods.setdefault(name, plan.range_method)
    return methods


def _grids(
    regions: tuple[Region, ...],
    recipe: Recipe,
    calibration: Calibration,
    plans: Mapping[str, RegionRecipe],
    known: Known,
) -> dict[str, Grid]:
    static = [plan for plan in plans.values() if plan.format in (Format.INT8_STATIC, Format.INT16_STATIC)]
    if not static:
        return {}
    methods = range_methods(regions, plans)
    bits = 16 if any(plan.format is Format.INT16_STATIC for plan in static) else 8
    default = static[0].range_method
    return grids(
        calibration,
        regions,
        methods,
        default=default,
        signs=recipe.signs,
        bits=bits,
        clip=recipe.clip or {},
        known=known.ranges,
    )
