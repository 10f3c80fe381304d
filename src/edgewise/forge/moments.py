"""First and second moments of what a region's weights are multiplied with, accumulated in a stream.

Memory is one [k, k] matrix per region and group, however many samples there are. Feature maps are
thinned to as many positions as a region's matrix needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.calibrate import observed
from edgewise.forge.graph import Graph, attribute
from edgewise.forge.parameters import FloatArray
from edgewise.forge.regions import Kind, Region
from edgewise.forge.stream import values
from edgewise.forge.tasks.base import Array, Dataset
from edgewise.numerics.grid import Grid, fake_quantize
from edgewise.runtimes.base import Runtime

# Columns seen per region: so many, or so many times its inputs.
_COLUMNS = 2048
_COLUMNS_PER_INPUT = 4
# So many are multiplied at a time: a sum of [k, k] costs the same for few of them.
_AT_ONCE = 256
# A dense matrix beyond this many inputs costs more than it brings.
MAX_INPUTS = 4096


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Of one region's input columns, by group of the convolution (one group for products).

    `second` [groups, k, k] and `mean_grid` [groups, k] are of the columns on the input's grid,
    `mean` [groups, k] of the float columns. Without a grid the two means agree.
    """

    second: NDArray[np.float64]
    mean: NDArray[np.float64]
    mean_grid: NDArray[np.float64]


def moments(  # noqa: PLR0913 - what to run, on what, with what
    graph: Graph,
    regions: Sequence[Region],
    dataset: Dataset,
    indices: Sequence[int],
    *,
    grids: Mapping[str, Grid],
    runtime: Runtime,
    threads: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Moments]:
    """Return the moments of the inputs of all regions with weights, over fp32's activations."""
    wanted = [region for region in regions if region.weight is not None and inputs_of(graph, region) <= MAX_INPUTS]
    session = runtime.load(observed(graph, tuple(dict.fromkeys(each.inputs[0] for each in wanted))), threads=threads)
    random = np.random.default_rng(seed)
    sums = {region.name: _Sum() for region in wanted}
    done = 0
    for size, found in values(session, dataset, indices):
        for region in wanted:
            needed = max(_COLUMNS, _COLUMNS_PER_INPUT * inputs_of(graph, region))
            limit = -(-needed * size // len(indices))
            columns = input_columns(graph, region, found[region.inputs[0]], limit=limit, random=random)
            sums[region.name].add(columns, grids.get(region.inputs[0]))
        done += size
        progress(done)
    return {name: each.moments() for name, each in sums.items()}


def input_columns(
    graph: Graph, region: Region, values: Array, *, limit: int, random: np.random.Generator
) -> FloatArray:
    """Return at most `limit` columns that the weight's rows are multiplied with: [groups, k, columns]."""
    if region.kind is not Kind.CONV:
        flat = values.reshape(-1, values.shape[-1])
        return np.ascontiguousarray(flat[_picked(len(flat), limit, random)].T[None], dtype=np.float32)
    node = graph.nodes[region.anchor]
    kernel = graph.constants[region.weight or ""].shape[2:]
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))
    padded = np.pad(values, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]) if any(pads) else values
    sizes = [
        (have - (size - 1) * dilation - 1) // stride + 1
        for have, size, dilation, stride in zip(padded.shape[2:], kernel, dilations, strides, strict=True)
    ]
    picked = _picked(len(values) * int(np.prod(sizes)), limit, random)
    sample, *cells = np.unravel_index(picked, (len(values), *sizes))
    starts = [cell * stride for cell, stride in zip(cells, strides, strict=True)]
    groups = int(attribute(node, "group", 1))
    columns = np.empty((values.shape[1], int(np.prod(kernel)), len(picked)), np.float32)
    for at, offset in enumerate(np.ndindex(*kernel)):
        where = [start + step * dilation for start, step, dilation in zip(starts, offset, dilations, strict=True)]
        columns[:, at] = padded[(sample, slice(None), *where)].T
    return columns.reshape(groups, -1, len(picked))


def inputs_of(graph: Graph, region: Region) -> int:
    """Return k, the number of inputs of each output of a region with weights."""
    shape = graph.constants[region.weight or ""].shape
    if region.kind is Kind.CONV:
        return int(np.prod(shape[1:]))
    transposed = region.kind is Kind.GEMM and attribute(graph.nodes[region.anchor], "transB", 0)
    return int(shape[1] if transposed else shape[0])


def _picked(count: int, limit: int, random: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(count) if count <= limit else np.sort(random.choice(count, limit, replace=False))


class _Sum:
    """Running sums of columns and of their products, which are taken of many columns at once."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] | None = None
        self._mean_grid: NDArray[np.float64] | None = None
        self._second: NDArray[np.float64] | None = None
        self._waiting: list[FloatArray] = []

    def add(self, columns: FloatArray, grid: Grid | None) -> None:
        on_grid = columns if grid is None else fake_quantize(columns, grid)
        mean = columns.sum(axis=2, dtype=np.float64)
        mean_grid = on_grid.sum(axis=2, dtype=np.float64)
        if self._mean is None or self._mean_grid is None:
            self._mean, self._mean_grid = mean, mean_grid
        else:
            self._mean += mean
            self._mean_grid += mean_grid
        self._count += columns.shape[2]
        self._waiting.append(on_grid)
        if sum(each.shape[2] for each in self._waiting) >= _AT_ONCE:
            self._multiply()

    def moments(self) -> Moments:
        self._multiply()
        if self._mean is None or self._mean_grid is None or self._second is None:
            raise ValueError
        count = max(self._count, 1)
        return Moments(second=self._second / count, mean=self._mean / count, mean_grid=self._mean_grid / count)

    def _multiply(self) -> None:
        if not self._waiting:
            return
        columns = np.concatenate(self._waiting, axis=2)
        self._waiting.clear()
        second = (columns @ columns.transpose(0, 2, 1)).astype(np.float64)
        self._second = second if self._second is None else self._second + second
