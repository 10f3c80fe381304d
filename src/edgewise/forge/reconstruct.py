"""Reconstruct weights layer by layer: GPTQ (arXiv 2210.17323, algorithm 1), and the biases that go with it.

For a region y = W x the rounding minimises ||(W - W_q) X_q||^2, X_q being the calibrated inputs on the
input's own grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.graph import Graph
from edgewise.forge.moments import Moments
from edgewise.forge.parameters import FloatArray, Parameters, WeightValues, rows_of
from edgewise.forge.regions import Region
from edgewise.numerics.rounding import Order, gptq


def reconstructed(
    graph: Graph, regions: Sequence[Region], parameters: Parameters, found: Mapping[str, Moments]
) -> dict[str, WeightValues]:
    """Return the weights of all regions that have moments, rounded by GPTQ at the parameters' own scales."""
    return {
        region.name: _rounded(graph, region, found[region.name], parameters)
        for region in regions
        if region.name in found and region.name in parameters.weights
    }


def smoothed(found: Moments, divisor: FloatArray | None) -> Moments:
    """Return the moments of an input that is divided channel by channel (one group)."""
    if divisor is None:
        return found
    factor = 1.0 / divisor.astype(np.float64)
    return Moments(
        second=found.second * factor[None, :, None] * factor[None, None, :],
        mean=found.mean * factor,
        mean_grid=found.mean_grid * factor,
    )


def bias_shifts(
    graph: Graph,
    regions: Sequence[Region],
    parameters: Parameters,
    weights: Mapping[str, WeightValues],
    found: Mapping[str, Moments],
) -> dict[str, FloatArray]:
    """Return what to add to each bias: E[W x] - E[W_q x_q] (arXiv 1906.04721, section 4.2).

    x_q is fp32's input on the region's grid: what comes from further up is corrected there, so that
    the shifts of a chain of regions do not add up to too much.
    """
    shifts = {}
    for region in regions:
        if region.name not in weights or region.name not in found:
            continue
        values = weights[region.name]
        quantized = values.values.astype(np.float32) * values.scale[:, None]
        exact = _row_means(_rows(graph, region, parameters), found[region.name].mean)
        shifts[region.name] = (exact - _row_means(quantized, found[region.name].mean_grid)).astype(np.float32)
    return shifts


def _rounded(graph: Graph, region: Region, found: Moments, parameters: Parameters) -> WeightValues:
    rows, scale = _rows(graph, region, parameters), parameters.weights[region.name].scale
    groups = np.split(np.arange(len(rows)), len(found.second))
    parts = [
        gptq(rows[group], second, scale[group], order=Order.ACTIVATION)
        for group, second in zip(groups, found.second, strict=True)
    ]
    return WeightValues(values=np.concatenate(parts).astype(np.int8), scale=scale)


def _rows(graph: Graph, region: Region, parameters: Parameters) -> FloatArray:
    changed = parameters.floats.get(region.name)
    return rows_of(graph, region, graph.constants[region.weight or ""]) if changed is None else changed


def _row_means(rows: FloatArray, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows @ mean, group by group: `mean` is [groups, k]."""
    grouped = rows.reshape(len(mean), len(rows) // len(mean), -1)
    return np.asarray(np.einsum("gok,gk->go", grouped, mean), np.float64).reshape(-1)
