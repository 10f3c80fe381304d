"""Measure, tensor by tensor, what a variant adds to fp32: by running both, not by a simulation.

Both models run with their inner tensors as outputs; integers are read as the shipped kernels wrote them. A third
model, fp32 cut at every point, is fed what the variant had at each cut: its outputs are what the variant would have
without error of its own, so own error and inherited error come apart.

With f what fp32 makes of the variant's inputs, g what the variant wrote and Q the grid it is written on, the own
error splits into three parts: clipping (f - clip f, of values more than half a step beyond the grid's ends), the grid
(clip f - Q f, and f - Q f of all others) and the rest (Q f - g), which is what weights, biases and inputs' own rounding
leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgewise.forge.calibrate import observed
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Kind
from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.verify.beside import Beside
from edgewise.forge.verify.points import Point
from edgewise.numerics.grid import dequantize, fake_quantize
from edgewise.numerics.histogram import Histogram
from edgewise.runtimes.base import Runtime, Session

DoubleArray = NDArray[np.float64]

# Elements of one tensor looked at per sample; extremes are taken from all of them.
_ELEMENTS = 1 << 12


class Noise:
    """Running sums of one point over samples."""

    def __init__(self, point: Point) -> None:
        """Start empty."""
        self.point = point
        self.count = 0
        self.signal = 0.0
        """Sum of the squares of fp32's values."""
        self.total = 0.0
        """Sum of the squares of the variant's error, inherited and own."""
        self.made = 0.0
        """Sum of the squares of what fp32 makes of the variant's inputs."""
        self.own = 0.0
        self.clipping = 0.0
        self.rounding = 0.0
        self.rest = 0.0
        self.clipped = 0
        self.low = 0.0
        self.high = 0.0
        """Extremes of fp32's values on the test split, widened to 0."""
        self.pool = (0.0, 0.0)
        """The same on the calibration data, as far as it was looked at."""
        self.histogram = Histogram()
        self.peaks: DoubleArray = np.zeros(1)
        """Largest magnitude of fp32's values by channel."""
        self.sums: DoubleArray = np.zeros((6, 1))
        """By channel, over values inside the grid: n, f, g, f f, f g, g g."""

    def add(self, reference: Array, made: Array, got: Array) -> None:
        """Add one sample: fp32's values, those of fp32 on the variant's inputs, and the variant's."""
        self.widen(reference)
        y, f, g = (self._rows(each) for each in (reference, made, got))
        self._see(y)
        self.count += y.size
        self.signal += _square(y)
        self.total += _square(g - y)
        self.made += _square(f)
        self.own += _square(g - f)
        inside = np.ones(f.shape, np.bool_)
        grid = self.point.grid
        if grid is not None:
            low, high = float(np.min(grid.low)), float(np.max(grid.high))
            clipped = np.clip(f, low, high)
            # A value half a step beyond the end is rounded to it, not clipped.
            inside = np.abs(f - clipped) <= 0.5 * float(np.max(grid.scale))
            on_grid = fake_quantize(f, grid) if grid.axis is None else clipped
            self.clipping += _square(np.where(inside, 0, f - clipped))
            self.rounding += _square(np.where(inside, f, clipped) - on_grid)
            self.rest += _square(on_grid - g)
            self.clipped += int(f.size - inside.sum())
            inside &= (g > low) & (g < high)
        self._regress(f, g, inside)

    def widen(self, reference: Array, *, pool: bool = False) -> None:
        """Let fp32's values widen the extremes, those of the calibration data where `pool` says so."""
        if not reference.size:
            return
        low, high = float(reference.min()), float(reference.max())
        if pool:
            self.pool = min(self.pool[0], low), max(self.pool[1], high)
        else:
            self.low, self.high = min(self.low, low), max(self.high, high)

    def _rows(self, values: Array) -> NDArray[np.float32]:
        """Return values as [channels, positions], thinned alike for all three."""
        region = self.point.region
        spatial = values.ndim >= 3 and (region is None or region.kind is Kind.CONV or values.ndim == 4)
        axis = 1 if spatial or values.ndim == 2 else values.ndim - 1
        rows = (
            np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) if values.ndim > 1 else values.reshape(1, -1)
        )
        step = max(1, -(-rows.size // _ELEMENTS))
        return np.asarray(rows[:, :: step + (step % 2 == 0)] if step > 1 else rows, dtype=np.float32)

    def _see(self, y: NDArray[np.float32]) -> None:
        self.histogram.update(y, extremes=(self.low, self.high))
        peak = np.abs(y).max(axis=1).astype(np.float64)
        self.peaks = np.maximum(self.peaks, peak) if self.peaks.size == peak.size else peak

    def _regress(self, f: NDArray[np.float32], g: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
        weight = inside.astype(np.float64)
        terms = [weight, weight * f, weight * g, weight * f * f, weight * f * g, weight * g * g]
        sums = np.stack([each.sum(axis=1) for each in terms])
        self.sums = self.sums + sums if self.sums.shape == sums.shape else sums


class Observer:
    """The three sessions of one comparison."""

    def __init__(
        self, reference: Graph, variant: Graph, points: Sequence[Point], *, runtime: Runtime, threads: int
    ) -> None:
        """Load the models. Raises ExecutionError where the runtime refuses one of them."""
        self.points = points
        names = tuple(point.reference for point in points)
        self._reference: Session = runtime.load(observed(reference, names), threads=threads)
        self._variant: Session = runtime.load(_exposed(variant, points), threads=threads)
        self._made: Session = runtime.load(_cut(reference, points), threads=threads)
        self._beside = Beside()

    def run(self, feeds: Feeds) -> Iterable[tuple[Point, Array, Array, Array]]:
        """Yield (point, fp32's values, those of fp32 on the variant's inputs, the variant's) for one sample."""
        mine, its = self._beside.both(partial(_run, self._reference, feeds), partial(_run, self._variant, feeds))
        expected, raw = dict(feeds) | mine, dict(feeds) | its
        got = {point.reference: _floats(raw[point.variant], point) for point in self.points}
        cuts = {spec.name for spec in self._made.inputs}
        given = {f"{name}{_GIVEN}": value for name, value in got.items()} | dict(feeds)
        made = dict(feeds) | _run(self._made, {name: value for name, value in given.items() if name in cuts})
        for point in self.points:
            name = point.reference
            if expected[name].shape == made[name].shape == got[name].shape and got[name].size:
                yield point, expected[name], made[name], got[name]

    def values(self, feeds: Feeds) -> dict[str, Array]:
        """Return fp32's values of one sample."""
        return dict(feeds) | _run(self._reference, feeds)


def measure(
    observer: Observer, samples: Iterable[Feeds], *, report: Callable[[int], None] = lambda _: None
) -> tuple[Noise, ...]:
    """Run samples and return the noise of every point, in the points' order."""
    found = {point.reference: Noise(point) for point in observer.points}
    for done, feeds in enumerate(samples, 1):
        for point, expected, made, got in observer.run(feeds):
            found[point.reference].add(expected, made, got)
        report(done)
    return tuple(noise for noise in found.values() if noise.count)


def widen(
    reference: Graph,
    noises: Sequence[Noise],
    samples: Iterable[tuple[Feeds, bool]],
    *,
    runtime: Runtime,
    threads: int,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Widen the extremes of `noises` by running fp32 alone on (feeds, whether they are calibration data)."""
    session = runtime.load(observed(reference, [noise.point.reference for noise in noises]), threads=threads)
    for done, (feeds, pool) in enumerate(samples, 1):
        values = dict(feeds) | _run(session, feeds)
        for noise in noises:
            noise.widen(values[noise.point.reference], pool=pool)
        report(done)


def share_extremes(noises: Iterable[Noise]) -> None:
    """Give tensors on one grid (of a Concat, a residual sum, a pool) the extremes of all of them."""
    groups: dict[tuple[float, int], list[Noise]] = {}
    for noise in noises:
        grid = noise.point.grid
        if grid is not None and grid.axis is None:
            groups.setdefault((float(grid.scale), int(grid.zero_point)), []).append(noise)
    for group in groups.values():
        low, high = min(each.low for each in group), max(each.high for each in group)
        pool = min(each.pool[0] for each in group), max(each.pool[1] for each in group)
        for each in group:
            each.low, each.high, each.pool = low, high, pool


_GIVEN = "@given"


def _run(session: Session, feeds: Feeds) -> dict[str, Array]:
    names = [spec.name for spec in session.outputs]
    return dict(zip(names, session.run(feeds), strict=True))


def _floats(values: Array, point: Point) -> Array:
    return values if point.grid is None else dequantize(values, point.grid)


def _exposed(variant: Graph, points: Sequence[Point]) -> bytes:
    """Return the variant with the points' tensors among its outputs: integers where it has integers."""
    model = onnx.ModelProto()
    model.CopyFrom(variant.model)
    present = {each.name for each in (*model.graph.output, *model.graph.input)}
    for point in points:
        if point.variant not in present:
            kind = onnx.TensorProto.FLOAT
            if point.grid is not None:
                kind = helper.np_dtype_to_tensor_dtype(point.grid.dtype)
            model.graph.output.append(helper.make_tensor_value_info(point.variant, kind, None))
    return bytes(model.SerializeToString())


def _cut(reference: Graph, points: Sequence[Point]) -> bytes:
    """Return fp32 cut at every point: readers take the variant's values, writers are outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(reference.model)
    graph = model.graph
    names = {point.reference for point in points}
    read = set()
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in names:
                node.input[at] = f"{name}{_GIVEN}"
                read.add(name)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in reference.inputs
    )
    graph.input.extend(
        helper.make_tensor_value_info(f"{name}{_GIVEN}", onnx.TensorProto.FLOAT, None) for name in sorted(read)
    )
    unread = [each for each in graph.input if each.name in names]
    for each in unread:
        graph.input.remove(each)
    return bytes(model.SerializeToString())


def _square(values: Array) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return float(np.dot(flat, flat))
