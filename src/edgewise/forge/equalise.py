"""Cross-layer equalisation: scale channels so that one grid per tensor fits all of them.

arXiv 1906.04721, section 4.1, for chains of any shape. Tensors whose channels must be scaled together
(a residual stream, its sums, its pools) form a class. Dividing every channel c of a class by s_c > 0 is
free where all that writes the class is linear up to its Relu (its weight rows and biases are divided)
and all that reads it has weights (their columns are multiplied): the function stays what it was.

A Clip at b (Relu6) behind the only writer stays at b. Where all readers are depthwise, whose channels have a row of
weights each, its channels are scaled up all the same: those that it really cuts not at all, the others as far as their
peaks leave room beneath b. One that passes its peak by more than that room is cut, as any calibrated range cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from edgewise.forge.calibrate import observed
from edgewise.forge.graph import Graph, attribute
from edgewise.forge.parameters import FloatArray
from edgewise.forge.regions import Kind, Region
from edgewise.forge.stream import values
from edgewise.forge.tasks.base import Dataset
from edgewise.runtimes.base import Runtime

# Ops that keep channels apart and commute with a positive factor per channel.
_HOMOGENEOUS = frozenset({"Add", "MaxPool", "AveragePool", "GlobalAveragePool"})
_SAMPLES = 48
_LIMIT = 64.0
# Beneath a Clip: how much farther than its peak a channel may go, and how much it may be scaled up at most.
_ROOM, _CLIPPED_LIMIT = 1.25, 16.0


class ChannelClass(msgspec.Struct, frozen=True, kw_only=True):
    """Tensors that share one factor per channel, the regions that write them and those that read them."""

    tensors: tuple[str, ...]
    writers: tuple[Region, ...]
    readers: tuple[Region, ...]
    bound: float = np.inf
    """Where a Clip behind the only writer cuts; infinite without one."""


def channel_classes(graph: Graph, regions: tuple[Region, ...]) -> tuple[ChannelClass, ...]:
    """Return the classes that can be scaled without changing what the model computes."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    for region in regions:
        if region.op in _HOMOGENEOUS and region.bounds in (None, (0.0, np.inf)):
            for name in region.inputs:
                root[find(name)] = find(region.output)
    members: dict[str, set[str]] = {}
    for region in regions:
        for name in (*region.inputs, region.output):
            members.setdefault(find(name), set()).add(name)
    owner = {index: region for region in regions for index in region.nodes}
    writer = {region.output: region for region in regions}
    made = (_class(graph, names, writer, owner) for names in members.values())
    return tuple(each for each in made if each is not None)


def equalised(
    graph: Graph,
    classes: Sequence[ChannelClass],
    peaks: Mapping[str, FloatArray],
    *,
    alpha: float,
) -> onnx.ModelProto:
    """Return the model with all classes scaled: s_c = r_c^alpha / w_c^(1 - alpha), of geometric mean 1.

    r_c is the largest magnitude of channel c over the class's tensors (`peaks`), w_c that of the
    columns that read it. alpha = 1 makes the activations' channels equal, 0 the columns. Beneath a Clip
    s_c = min(r_c / top, 1), top being the largest r_c that has room.
    """
    changed: dict[str, FloatArray] = {}
    for each in classes:
        span = np.max([peaks[name] for name in each.tensors], axis=0)
        if np.isfinite(each.bound):
            _scale(graph, changed, each, _beneath(span, each.bound))
            continue
        columns = np.max([_column_peaks(graph, changed, region) for region in each.readers], axis=0)
        live = (span > 0) & (columns > 0)
        if not live.any():
            continue
        raw = np.where(live, np.maximum(span, 1e-12) ** alpha / np.maximum(columns, 1e-12) ** (1 - alpha), 1.0)
        factor = raw / np.exp(np.log(raw[live]).mean())
        factor = np.where(live, np.clip(factor, 1 / _LIMIT, _LIMIT), 1.0).astype(np.float32)
        _scale(graph, changed, each, factor)
    return _with_weights(graph, changed)


def scaled(graph: Graph, factors: Sequence[tuple[ChannelClass, FloatArray]]) -> onnx.ModelProto:
    """Return the model with the channels of these classes divided by factors [channels] of one's own."""
    changed: dict[str, FloatArray] = {}
    for each, factor in factors:
        _scale(graph, changed, each, factor)
    return _with_weights(graph, changed)


def channel_peaks(
    graph: Graph, classes: Sequence[ChannelClass], dataset: Dataset, *, runtime: Runtime, threads: int
) -> dict[str, FloatArray]:
    """Return the largest magnitude of each channel (axis 1) of the classes' tensors, over some samples."""
    tensors = tuple(name for each in classes for name in each.tensors)
    session = runtime.load(observed(graph, tensors), threads=threads)
    peaks: dict[str, FloatArray] = {}
    indices = range(min(_SAMPLES, len(dataset)))
    for _, found in values(session, dataset, indices):
        for name in tensors:
            axes = tuple(axis for axis in range(found[name].ndim) if axis != 1)
            peak = np.abs(found[name]).max(axis=axes)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def _class(
    graph: Graph, names: set[str], writer: Mapping[str, Region], owner: Mapping[int, Region]
) -> ChannelClass | None:
    writers: dict[str, Region] = {}
    readers: dict[str, Region] = {}
    for name in names:
        source = writer.get(name)
        if source is None or name in graph.outputs:
            return None
        if source.op not in _HOMOGENEOUS:
            if source.kind is not Kind.CONV or (source.bounds or (0.0,))[0] != 0.0:
                return None
            writers[source.name] = source
        for index in graph.consumers.get(name, ()):
            reader = owner.get(index)
            if reader is None or name not in reader.inputs:
                return None
            if reader.op in _HOMOGENEOUS:
                continue
            if reader.kind is not Kind.CONV or (source.raw_output == name and source.output != name):
                return None
            readers[reader.name] = reader
    return _joined(graph, names, tuple(writers.values()), tuple(readers.values()))


def _joined(
    graph: Graph, names: set[str], writers: tuple[Region, ...], readers: tuple[Region, ...]
) -> ChannelClass | None:
    bound = min((each.bounds[1] for each in writers if each.bounds is not None), default=np.inf)
    clipped = bool(np.isfinite(bound))
    if not writers or not readers or (clipped and len(writers) > 1):
        return None
    if clipped and not all(_is_depthwise(graph, each) for each in readers):
        return None
    return ChannelClass(tensors=tuple(sorted(names)), writers=writers, readers=readers, bound=bound)


def _beneath(span: FloatArray, bound: float) -> FloatArray:
    top = max(min(float(span.max()), bound / _ROOM), 1e-12)
    return np.asarray(np.where(span > 0, np.clip(span / top, 1 / _CLIPPED_LIMIT, 1.0), 1.0), np.float32)


def _is_depthwise(graph: Graph, region: Region) -> bool:
    groups = int(attribute(graph.nodes[region.anchor], "group", 1))
    return groups > 1 and graph.constants[region.weight or ""].shape[1] == 1


def _weight(graph: Graph, changed: Mapping[str, FloatArray], name: str) -> FloatArray:
    return changed[name] if name in changed else graph.constants[name].astype(np.float32)


def _column_peaks(graph: Graph, changed: Mapping[str, FloatArray], region: Region) -> FloatArray:
    """Return the largest weight that multiplies each input channel [in_channels]."""
    weight = np.abs(_weight(graph, changed, region.weight or ""))
    groups = int(attribute(graph.nodes[region.anchor], "group", 1))
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return np.asarray(grouped.max(axis=(1, 3)).reshape(-1), dtype=np.float32)


def _scale(graph: Graph, changed: dict[str, FloatArray], each: ChannelClass, factor: FloatArray) -> None:
    for region in each.writers:
        _scale_rows(graph, changed, region, np.reciprocal(factor))
    for region in each.readers:
        _scale_columns(graph, changed, region, factor)


def _scale_rows(graph: Graph, changed: dict[str, FloatArray], region: Region, factor: FloatArray) -> None:
    name = region.weight or ""
    weight = _weight(graph, changed, name)
    changed[name] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if region.bias:
        changed[region.bias] = _weight(graph, changed, region.bias) * factor


def _scale_columns(graph: Graph, changed: dict[str, FloatArray], region: Region, factor: FloatArray) -> None:
    name = region.weight or ""
    changed[name] = columns_scaled(graph, region, _weight(graph, changed, name), factor)


def columns_scaled(graph: Graph, region: Region, weight: FloatArray, factor: FloatArray) -> FloatArray:
    """Return a convolution's weight with what multiplies input channel c scaled by factor[c]."""
    groups = int(attribute(graph.nodes[region.anchor], "group", 1))
    per_group = factor.reshape(groups, 1, weight.shape[1])
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return np.asarray((grouped * per_group[..., None]).reshape(weight.shape), np.float32)


def _with_weights(graph: Graph, changed: Mapping[str, FloatArray]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for each in model.graph.initializer:
        if each.name in changed:
            each.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed[each.name]), each.name))
    return model
