"""Lower a variant's recipe again and compare every constant and node, bit for bit.

What calibration data determined besides (the grids of activations, corrected biases, rounding reconstructed with GPTQ,
smoothing) comes from what the run kept of it. Where nothing was kept it is taken from the variant, and counted: it is
checked against fp32's weights and against the test data, but not against the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from edgewise.contracts.recipe import Format, Recipe, RegionRecipe, Rounding
from edgewise.forge.graph import Array, Graph
from edgewise.forge.kept import Kept
from edgewise.forge.lower.lowering import STATIC, lower
from edgewise.forge.parameters import FloatArray, Parameters, WeightValues, rows_of
from edgewise.forge.regions import Kind, Region, regions_of
from edgewise.forge.verify.quantized import written_grids
from edgewise.forge.weights import INTEGER_WEIGHTS, quantize_rows, weight_scale
from edgewise.numerics.grid import Grid
from edgewise.numerics.weight_ranges import weight_mse


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One constant, or node, that is not what the recipe makes."""

    name: str
    count: int
    """Elements that differ; 0 where the whole is missing or of another shape or type."""
    index: tuple[int, ...] = ()
    expected: float | None = None
    found: float | None = None


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    constants: int
    """Constants that are the same, bit for bit."""
    differences: tuple[Difference, ...]
    grids: int
    """Activation grids, taken from the variant; 0 where the run kept what made them."""
    learned: int
    """Layers whose rounding or bias calibration data determined, taken from the variant; 0 as above."""
    is_same_file: bool
    """Whether the whole model is the same, and not only its constants and nodes."""


def rebuild(normalised: Graph, variant: Graph, recipe: Recipe, kept: Kept | None) -> Rebuilt | None:
    """Lower `recipe` again; None where data determined what the recipe does to fp32's weights, and nothing was kept.

    Raises ModelError where the recipe does not fit the model, DataError where what was kept does not fit the recipe.
    """
    regions = regions_of(normalised)
    grids, learned = 0, 0
    if kept is not None:
        parameters = kept.parameters(normalised, regions, recipe)
    elif any(each.smooth_alpha is not None for each in recipe.regions):
        return None
    else:
        found = _Found(normalised, variant, {each.region: each for each in recipe.regions})
        parameters = found.parameters(regions)
        grids, learned = len(found.grids), len(found.learned)
    made = lower(normalised, regions, recipe, parameters)
    expected = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    held = {each.name: numpy_helper.to_array(each) for each in variant.model.graph.initializer}
    differences = [each for name in {**expected, **held} if (each := _difference(name, expected, held)) is not None]
    nodes = {node.SerializeToString(deterministic=True) for node in made.graph.node}
    differences += [
        Difference(name=node.name or node.output[0], count=0)
        for node in variant.nodes
        if node.SerializeToString(deterministic=True) not in nodes
    ]
    return Rebuilt(
        constants=len(expected) - len(differences),
        differences=tuple(differences),
        grids=grids,
        learned=learned,
        is_same_file=_bytes(made) == _bytes(variant.model),
    )


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


class _Found:
    """The parameters of a recipe: computed where it determines them, else as the variant has them."""

    def __init__(self, normalised: Graph, variant: Graph, plans: Mapping[str, RegionRecipe]) -> None:
        self._graph = normalised
        self._held = variant.constants
        self._plans = plans
        self.grids = {name.removesuffix("/q"): grid for name, grid in written_grids(variant).items()}
        self.learned: set[str] = set()

    def parameters(self, regions: tuple[Region, ...]) -> Parameters:
        weights: dict[str, WeightValues] = {}
        biases: dict[str, FloatArray] = {}
        grids = self._moved(regions)
        for region in regions:
            plan = self._plans.get(region.name)
            if plan is None or region.weight is None or plan.format not in INTEGER_WEIGHTS:
                continue
            weights[region.name] = self._weight(region, plan, grids)
            if plan.bias_correction and plan.format in STATIC:
                bias = self._bias(region, weights[region.name], grids)
                if bias is not None:
                    biases[region.name] = bias
                    self.learned.add(region.name)
        return Parameters(grids=grids, weights=weights, biases=biases, smooth={})

    def _moved(self, regions: tuple[Region, ...]) -> dict[str, Grid]:
        """Return the grids, those of tensors that are only moved too."""
        grids = dict(self.grids)
        for region in regions:
            if region.kind is Kind.PASS and region.inputs[0] in grids:
                grids.setdefault(region.output, grids[region.inputs[0]])
        return grids

    def _weight(self, region: Region, plan: RegionRecipe, grids: Mapping[str, Grid]) -> WeightValues:
        rows = rows_of(self._graph, region, self._graph.constants[region.weight or ""])
        bias = self._graph.constants[region.bias].astype(np.float32) if region.bias else None
        scale_x = None if plan.format is Format.INT8_DYNAMIC else grids[region.inputs[0]].scale
        values = quantize_rows(rows, weight_scale(weight_mse(rows, bits=8), plan, bias=bias, scale_x=scale_x))
        codes = self._held.get(f"{region.name}/weight_q")
        if plan.rounding is Rounding.GPTQ and codes is not None and codes.size == rows.size:
            self.learned.add(region.name)
            return WeightValues(values=self._rows(region, codes, rows), scale=values.scale)
        return values

    def _rows(self, region: Region, codes: Array, rows: FloatArray) -> Array:
        """Return stored codes in the order of `rows_of`: products store [in, out], as does a Gemm made one."""
        stored = self._graph.constants[region.weight or ""].shape
        if codes.shape == stored and region.kind is Kind.CONV:
            return codes.reshape(rows.shape)
        return np.ascontiguousarray(codes.T) if codes.shape == rows.shape[::-1] else codes

    def _bias(self, region: Region, weight: WeightValues, grids: Mapping[str, Grid]) -> FloatArray | None:
        held = self._held.get(f"{region.name}/bias")
        if held is not None:
            return held.astype(np.float32)
        codes = self._held.get(f"{region.name}/bias_q")
        if codes is None:
            return None
        unit = (grids[region.inputs[0]].scale * weight.scale).astype(np.float32).astype(np.float64)
        return np.asarray(codes * unit, np.float32)


def _difference(name: str, expected: Mapping[str, Array], held: Mapping[str, Array]) -> Difference | None:
    if name not in expected or name not in held:
        return Difference(name=name, count=0)
    want, have = expected[name], held[name]
    if want.shape != have.shape or want.dtype != have.dtype:
        return Difference(name=name, count=0)
    if want.tobytes() == have.tobytes():
        return None
    differ = np.atleast_1d(want != have)
    at = tuple(int(axis) for axis in np.unravel_index(int(differ.argmax()), differ.shape))
    return Difference(
        name=name,
        count=int(differ.sum()),
        index=at,
        expected=float(np.atleast_1d(want)[at]),
        found=float(np.atleast_1d(have)[at]),
    )
