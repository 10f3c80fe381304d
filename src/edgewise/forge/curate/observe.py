"""One fp32 pass over a pool: how far each sample drives every channel of every activation.

Memory is one batch of activations and a table of samples by channels, both bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.errors import DataError
from edgewise.forge.calibrate import activations_of, observed
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Kind, Region
from edgewise.forge.tasks.base import Array, Dataset
from edgewise.runtimes.base import Runtime

MOST_SAMPLES = 2048
MOST_CHANNELS = 8192
"""Columns of the table: 64 MiB with the most samples. Beyond that every tensor is thinned evenly."""
MOST_ELEMENTS = 20_000_000_000
"""Activations read in one pass. A bound on work and not on time, so that the same seed chooses the same samples."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass over a pool saw."""

    indices: tuple[int, ...]
    """The samples of the pool, in the order of the rows."""
    tensors: tuple[str, ...]
    """The activation of every column."""
    channels: tuple[int, ...]
    """The channel of every column, counted within its tensor."""
    peaks: NDArray[np.float32]
    """Largest |activation| [samples, columns]."""
    lows: NDArray[np.float32]
    """Least value of each tensor [samples, tensors], in the order of `names`."""
    highs: NDArray[np.float32]
    """Largest value of each tensor [samples, tensors]."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, each once."""
        return tuple(dict.fromkeys(self.tensors))


def observe(
    graph: Graph,
    regions: tuple[Region, ...],
    dataset: Dataset,
    indices: Sequence[int],
    *,
    runtime: Runtime,
    threads: int,
    group: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Observed:
    """Run the model over `indices` of `dataset`, one by one; ends early, with whole groups, where that is too much.

    Raises DataError where activations are not finite.
    """
    names = activations_of(graph, regions)
    first = _channels_first(graph, regions)
    session = runtime.load(observed(graph, names), threads=threads)
    outputs = [spec.name for spec in session.outputs]
    kept: dict[str, NDArray[np.int64]] = {}
    peaks = np.empty((0, 0), np.float32)
    lows = highs = np.empty((0, 0), np.float32)
    seen: list[int] = []
    for index in indices:
        feeds = dataset[index].feeds
        values = dict(zip(outputs, session.run(feeds), strict=True)) | dict(feeds)
        rows = {name: _peaks(values[name], channels_first=name in first) for name in names}
        if not seen:
            kept = _thinned({name: row.size for name, row in rows.items()})
            most = min(len(indices), _affordable(sum(values[name].size for name in names), group=group))
            peaks = np.empty((most, sum(each.size for each in kept.values())), np.float32)
            lows, highs = (np.empty((most, len(names)), np.float32) for _ in range(2))
        at = len(seen)
        peaks[at] = np.concatenate([_resized(rows[name], kept[name]) for name in names])
        lows[at] = [values[name].min() for name in names]
        highs[at] = [values[name].max() for name in names]
        if not np.isfinite(peaks[at]).all():
            raise DataError(
                f"{dataset.name}: sample {index} makes activations that are not finite",
                required="finite activations",
                next_step="look for NaN, infinity or wrongly scaled values in that sample",
            )
        seen.append(index)
        progress(len(seen))
        if len(seen) == len(peaks):
            break
    return Observed(
        indices=tuple(seen),
        tensors=tuple(name for name in names for _ in range(kept[name].size)) if seen else (),
        channels=tuple(int(at) for name in names for at in kept[name]) if seen else (),
        peaks=peaks,
        lows=lows,
        highs=highs,
    )


def _affordable(elements: int, *, group: int) -> int:
    """Return how many samples may be run, a multiple of `group`."""
    return max(1, MOST_ELEMENTS // max(1, elements * group)) * group


def _channels_first(graph: Graph, regions: tuple[Region, ...]) -> frozenset[str]:
    """Return the tensors whose channels are on axis 1, as convolutions have them; elsewhere it is the last axis."""
    found: set[str] = set()
    for region in regions:
        names = {*region.inputs, region.output}
        if region.kind is Kind.CONV or (names & found and region.kind is Kind.ELEMENTWISE):
            found |= {name for name in names if len(graph.shapes.get(name, ())) != 2}
    return frozenset(found)


def _peaks(values: Array, *, channels_first: bool) -> NDArray[np.float32]:
    """Return the largest magnitude of every channel of one sample."""
    axis = 1 if channels_first and values.ndim > 2 else -1
    others = tuple(at for at in range(values.ndim) if at != axis % max(values.ndim, 1))
    return np.asarray(np.abs(values).max(axis=others), np.float32).reshape(-1)


def _thinned(sizes: dict[str, int]) -> dict[str, NDArray[np.int64]]:
    """Return the channels that are kept of each tensor, spread over all of them; at least one of each."""
    share = min(1.0, MOST_CHANNELS / max(1, sum(sizes.values())))
    return {
        name: np.linspace(0, size - 1, max(1, math.floor(size * share))).round().astype(np.int64)
        for name, size in sizes.items()
    }


def _resized(row: NDArray[np.float32], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the kept channels; a sample of another length (a longer sentence in a product) has its last repeated."""
    return row[np.minimum(kept, row.size - 1)]


def grouped(seen: Observed, group: int) -> Observed:
    """Return what `group` consecutive rows saw together, as one row named after the first (sentence pairs).

    Raises ValueError where the rows are no multiple of `group`.
    """
    if group == 1:
        return seen
    if len(seen.indices) % group:
        raise ValueError(f"{len(seen.indices)} rows in groups of {group}")
    return msgspec.structs.replace(
        seen,
        indices=seen.indices[::group],
        peaks=seen.peaks.reshape(-1, group, seen.peaks.shape[1]).max(axis=1),
        lows=seen.lows.reshape(-1, group, seen.lows.shape[1]).min(axis=1),
        highs=seen.highs.reshape(-1, group, seen.highs.shape[1]).max(axis=1),
    )
