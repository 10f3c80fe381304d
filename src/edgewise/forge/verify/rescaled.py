"""Tell channels that were rescaled between layers (cross-layer equalisation) from weights that were changed.

Dividing a channel by s where it is written and multiplying it by s where it is read leaves the function what it was
(arXiv 1906.04721, section 4.1). A variant of a model that was rescaled so has other weights than fp32 in every layer,
and is right all the same: it is compared with fp32 rescaled alike, by the factors that are read from the variant.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.equalise import ChannelClass, channel_classes, columns_scaled, scaled
from edgewise.forge.graph import Graph
from edgewise.forge.parameters import FloatArray, rows_of
from edgewise.forge.regions import Region, regions_of
from edgewise.forge.verify.weights import Weight, paired, read

# Factors this close to 1 are rounding.
_LEAST = 0.05
# Equalisation gives factors of a geometric mean near 1: all channels on twice their scale are a wrong scale.
_MEAN = 0.35
# Root mean square of what the factors leave, in steps: rounding leaves 0.3, error feedback up to 1.
_FIT = 1.25
_ROWS = 0.9
# Weights that stay floats: what stands for a step, of the row's largest.
_FLOATS = 1e-3
_GONE = 1e-3


def rescaled(reference: Graph, variant: Graph) -> tuple[Graph, int] | None:
    """Return fp32 with its channels rescaled as the variant's are, and how many classes of channels; None without any.

    A class counts where its factors explain what writes it and what reads it.
    """
    regions = regions_of(reference)
    held = _held(reference, variant, regions)
    factors: dict[str, FloatArray] = {}
    found: list[tuple[ChannelClass, FloatArray]] = []
    order = {region.name: at for at, region in enumerate(regions)}
    classes = sorted(channel_classes(reference, regions), key=lambda each: min(order[w.name] for w in each.writers))
    for each in classes:
        first = min(each.writers, key=lambda region: order[region.name])  # what it reads has its factors by now
        factor = _factor(reference, first, held, factors, only_up=bool(np.isfinite(each.bound)))
        factors |= dict.fromkeys(each.tensors, factor)
        if np.abs(factor - 1).max() > _LEAST:
            found.append((each, factor))
    kept = [(each, factor) for each, factor in found if _explains(reference, each, held, factors)]
    if not kept or len(kept) < len(found):
        return None
    return Graph(scaled(reference, kept)), len(kept)


def _held(reference: Graph, variant: Graph, regions: tuple[Region, ...]) -> dict[str, Weight]:
    """Return the variant's weights by the name of the region that they belong to."""
    names = {region.raw_output: region.name for region in regions}
    found = {}
    for mine, its in paired(reference, variant):
        name = names.get(reference.nodes[mine.index].output[0])
        weight = read(variant, its) if its is not None and name is not None else None
        if weight is not None and name is not None:
            found[name] = weight
    return found


def _rows(graph: Graph, region: Region, factors: Mapping[str, FloatArray]) -> FloatArray:
    """Return fp32's rows with their columns scaled as the channels that they read."""
    weight = graph.constants[region.weight or ""].astype(np.float32)
    factor = factors.get(region.inputs[0])
    if factor is not None:
        weight = columns_scaled(graph, region, weight, factor)
    return rows_of(graph, region, weight)


def _gains(rows: FloatArray, weight: Weight) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return, per row, the variant's over fp32's by least squares, and whether no more than rounding is left."""
    if rows.shape != weight.rows.shape:
        return np.ones(len(rows), np.float32), np.zeros(len(rows), np.bool_)
    w, v = rows.astype(np.float64), weight.rows.astype(np.float64)
    square = (w * w).sum(axis=1)
    gain = np.where(square > 0, (w * v).sum(axis=1) / np.where(square > 0, square, 1), 1.0)
    gain = np.where(gain > _GONE, gain, 1.0)  # a row that is all zeros says nothing of its factor
    step = np.abs(v).max(axis=1, keepdims=True) * _FLOATS if weight.step is None else np.abs(weight.step)
    left = (v - gain[:, None] * w) / np.maximum(step, np.finfo(np.float32).tiny)
    return np.asarray(gain, np.float32), np.asarray(np.sqrt((left**2).mean(axis=1)) <= _FIT, np.bool_)


def _factor(
    graph: Graph, writer: Region, held: Mapping[str, Weight], factors: Mapping[str, FloatArray], *, only_up: bool
) -> FloatArray:
    """Return the factors of the channels that a region writes, as the variant has them; ones where it does not say.

    Beneath a Clip channels are scaled up only (`only_up`), and the largest stays where it is.
    """
    ones = np.ones(len(graph.constants[writer.weight or ""]), np.float32)
    if writer.name not in held:
        return ones
    gain, fits = _gains(_rows(graph, writer, factors), held[writer.name])
    usual = np.log(gain).min() if only_up else np.log(gain).mean()
    if fits.mean() < _ROWS or abs(float(usual)) > _MEAN:
        return ones
    return np.asarray(1 / gain, np.float32)


def _explains(graph: Graph, each: ChannelClass, held: Mapping[str, Weight], factors: Mapping[str, FloatArray]) -> bool:
    """Say whether all that writes and reads a class is fp32's, rescaled by rows and by the factors of its columns."""
    return all(
        region.name not in held or _gains(_rows(graph, region, factors), held[region.name])[1].mean() >= _ROWS
        for region in (*each.writers, *each.readers)
    )
