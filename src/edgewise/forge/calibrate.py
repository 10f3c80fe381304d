"""Calibrate in a stream: histograms and per-channel figures, updated batch by batch.

Memory holds two batches of activations and the accumulators; it does not grow with the number of
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import onnx
from onnx import helper

from edgewise.errors import DataError
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Kind, Region
from edgewise.forge.stream import values
from edgewise.forge.tasks.base import Array, Dataset
from edgewise.numerics.histogram import ChannelStats, Histogram
from edgewise.runtimes.base import Runtime

# Elements of one tensor that enter its histogram per sample. Extremes are taken from all of them, so
# only the body of the distribution is thinned.
_HISTOGRAM_ELEMENTS = 1 << 15


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What the calibration samples say about every activation that may be quantized."""

    histograms: dict[str, Histogram]
    channels: dict[str, ChannelStats]
    """Per channel (last axis) of the tensors that feed a product with a constant."""
    elements: dict[str, int]
    """Mean number of elements per sample of every such activation."""
    samples: int


def calibrate(
    graph: Graph,
    regions: tuple[Region, ...],
    dataset: Dataset,
    indices: Sequence[int],
    *,
    runtime: Runtime,
    threads: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Calibration:
    """Run the model over `indices` of `dataset` and accumulate. Raises DataError where activations are not finite."""
    tensors = activations_of(graph, regions)
    axes = channel_axes(regions)
    histograms = {name: Histogram() for name in tensors}
    channels = {name: ChannelStats(axis=axis) for name, axis in axes.items()}
    session = runtime.load(observed(graph, tensors), threads=threads)
    sizes = dict.fromkeys(tensors, 0)
    done = 0
    for count, found in values(session, dataset, indices):
        for name in tensors:
            _update(histograms[name], found[name], name, samples=count)
            sizes[name] += found[name].size
            if name in channels:
                channels[name].update(found[name])
        done += count
        progress(done)
    elements = {name: size // max(done, 1) for name, size in sizes.items()}
    return Calibration(histograms=histograms, channels=channels, elements=elements, samples=done)


def activations_of(graph: Graph, regions: tuple[Region, ...]) -> tuple[str, ...]:
    """Return the float activations that some region would quantize, each once, in graph order."""
    names: dict[str, None] = {}
    for region in regions:
        if region.kind is not Kind.FLOAT:
            for name in (*region.inputs, region.output):
                if name in graph.float_tensors or name == region.output:
                    names[name] = None
    return tuple(names)


def channel_axes(regions: tuple[Region, ...]) -> dict[str, int]:
    """Return the channel axis of the tensors that feed a product: SmoothQuant needs their channels' maxima."""
    return {region.inputs[0]: -1 for region in regions if region.kind in (Kind.MATMUL, Kind.GEMM)}


def observed(graph: Graph, tensors: Sequence[str]) -> bytes:
    """Return the model with `tensors` added to its outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    present = {each.name for each in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name not in present
    )
    return bytes(model.SerializeToString())


def _update(histogram: Histogram, values: Array, name: str, *, samples: int) -> None:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"activation {name!r} is not finite on a calibration sample ({low} .. {high})",
            required="finite activations",
            next_step="look for NaN, infinity or wrongly scaled values in the calibration data",
        )
    flat = values.reshape(-1)
    step = -(-flat.size // (_HISTOGRAM_ELEMENTS * samples))
    # A step that divides the row length would see the same columns every time.
    histogram.update(flat[:: step + (step % 2 == 0)] if step > 1 else flat, extremes=(low, high))
