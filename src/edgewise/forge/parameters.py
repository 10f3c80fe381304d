"""The numbers a recipe needs: integer weights, scales, biases and activation grids, ready to be written."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.graph import Graph, attribute
from edgewise.forge.regions import Kind, Region
from edgewise.numerics.grid import Grid

Array = NDArray[Any]
FloatArray = NDArray[np.float32]


class WeightValues(msgspec.Struct, frozen=True):
    """A quantized weight in the order of `rows_of`: `values` [out, in] integers, `scale` [out]."""

    values: NDArray[np.int8]
    scale: FloatArray


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `lower` writes that is not structure."""

    grids: dict[str, Grid]
    """Activation grids by tensor."""
    weights: dict[str, WeightValues]
    """Integer weights by region, for static and dynamic int8."""
    biases: dict[str, FloatArray]
    """Biases by region where they differ from the model's own (bias correction)."""
    smooth: dict[str, FloatArray]
    """By region: what its input is divided by, channel by channel; the weights already hold the product."""
    floats: dict[str, FloatArray] = {}
    """Float weights by region where they differ from the model's own (equalisation, smoothing)."""


def rows_of(graph: Graph, region: Region, weight: Array) -> FloatArray:
    """Return a weight as rows [out_channels, everything else], float32 and contiguous."""
    if region.kind is Kind.MATMUL or (
        region.kind is Kind.GEMM and not attribute(graph.nodes[region.anchor], "transB", 0)
    ):
        weight = weight.T
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1), dtype=np.float32)


def from_rows(graph: Graph, region: Region, rows: Array) -> Array:
    """Undo `rows_of`."""
    if region.weight is None:
        raise ValueError(region.name)
    shape = graph.constants[region.weight].shape
    if region.kind is Kind.MATMUL or (
        region.kind is Kind.GEMM and not attribute(graph.nodes[region.anchor], "transB", 0)
    ):
        return np.ascontiguousarray(rows.reshape(shape[1], shape[0]).T)
    return np.ascontiguousarray(rows.reshape(shape))


def weight_axis(graph: Graph, region: Region) -> int:
    """Return the axis of output channels in the stored weight."""
    transposed = region.kind is Kind.GEMM and attribute(graph.nodes[region.anchor], "transB", 0)
    return 0 if region.kind is Kind.CONV or transposed else 1
