"""Place number formats by measured cost: a minimum cut for two formats, a small MILP for more.

    minimise  sum_r time(r, f_r) + sum_T border(T, f) + weight * sum_r noise(r, f_r)

over the formats f_r of all regions. A border is a tensor T that one side has as floats and the other
needs as integers: there a QuantizeLinear or DequantizeLinear really runs, once a tensor. Sweeping the
weight of the noise walks the Pareto front of time against accuracy.

The two-format problem is an s-t cut (Picard and Ratliff, Networks 5 (1975), 357-370); a tensor with
several readers needs one auxiliary node per direction, so that its border is paid once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec
import numpy as np

from edgewise.contracts.recipe import Format
from edgewise.forge.regions import Kind, Region

Placement = dict[str, Format]
# Integer kernels whose output ranges over floats: nothing has to be dequantized behind them.
_FLOAT_OUTPUT = frozenset({Kind.MATMUL, Kind.PRODUCT})
_INTEGER_STATES = frozenset({Format.INT8_STATIC, Format.INT16_STATIC})


class Border(msgspec.Struct, frozen=True):
    """Cost of taking one tensor from floats to integers and back, microseconds per inference."""

    quantize_us: float
    dequantize_us: float


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What placement decides on. Formats missing for a region are not offered for it."""

    time_us: Mapping[str, Mapping[Format, float]]
    noise: Mapping[str, Mapping[Format, float]]
    borders: Mapping[str, Border]


def load_solver() -> None:
    """Import what `cut` solves with: a tenth of a second, which is a tenth of a small search."""
    import scipy.sparse.csgraph  # noqa: F401, PLC0415 - it is for the next import of it


def crossings(
    regions: tuple[Region, ...], placement: Placement, outputs: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tensors that a placement quantizes and those it dequantizes."""
    quantized, dequantized = [], []
    for tensor, producer, readers in _tensors(regions, outputs):
        needed = {_integers(placement, reader) for reader in readers}
        made = _integers(placement, producer) and not _makes_floats(producer, read_as_integers=True in needed)
        if True in needed and not made:
            quantized.append(tensor)
        if False in needed and made:
            dequantized.append(tensor)
    return tuple(quantized), tuple(dequantized)


def regions_us(regions: tuple[Region, ...], costs: Costs, placement: Placement) -> float:
    """Return the predicted time of a placement without its borders, microseconds per inference."""
    return sum(costs.time_us[region.name][placement.get(region.name, Format.FP32)] for region in regions)


def predicted_us(regions: tuple[Region, ...], costs: Costs, placement: Placement, outputs: tuple[str, ...]) -> float:
    """Return the predicted time of one inference of a placement, microseconds."""
    quantized, dequantized = crossings(regions, placement, outputs)
    total = regions_us(regions, costs, placement)
    total += sum(costs.borders[name].quantize_us for name in quantized if name in costs.borders)
    return total + sum(costs.borders[name].dequantize_us for name in dequantized if name in costs.borders)


def noise_of(costs: Costs, placement: Placement) -> float:
    """Return the predicted noise of a placement: regions' contributions add up."""
    return sum(costs.noise.get(name, {}).get(form, 0.0) for name, form in placement.items())


def cut(
    regions: tuple[Region, ...], costs: Costs, outputs: tuple[str, ...], *, integer: Format, weight: float
) -> Placement:
    """Return the optimal placement of fp32 and one static integer format.

    `weight` is the price of noise in microseconds per unit. Needs scipy.
    """
    network = _Network()
    for region in regions:
        times = costs.time_us[region.name]
        node = network.node(region.name)
        if integer not in times:
            network.edge(_SOURCE, node, _INFINITE)
            continue
        paid = times[integer] + weight * costs.noise.get(region.name, {}).get(integer, 0.0)
        network.edge(_SOURCE, node, paid)
        network.edge(node, _SINK, times[Format.FP32])
    for tensor, producer, readers in _tensors(regions, outputs):
        border = costs.borders.get(tensor)
        if border is not None:
            _add_border(network, border, producer, readers, tensor)
    float_side = network.source_side()
    return {
        region.name: Format.FP32 if network.node(region.name) in float_side else integer
        for region in regions
        if integer in costs.time_us[region.name]
    }


def milp(regions: tuple[Region, ...], costs: Costs, outputs: tuple[str, ...], *, weight: float) -> Placement:
    """Return the optimal placement over all formats the costs offer. Needs scipy (HiGHS).

    One binary per region and format, one continuous variable per tensor and border direction, which
    the binaries of its producer and readers bound from below.
    """
    from scipy.optimize import Bounds, LinearConstraint  # noqa: PLC0415 - slow to import
    from scipy.optimize import milp as solve  # noqa: PLC0415
    from scipy.sparse import coo_array  # noqa: PLC0415

    columns: dict[tuple[str, str], int] = {}
    objective: list[float] = []

    def column(key: tuple[str, str], cost: float) -> int:
        if key not in columns:
            columns[key] = len(objective)
            objective.append(cost)
        return columns[key]

    rows: list[dict[int, float]] = []
    low: list[float] = []
    high: list[float] = []
    for region in regions:
        names = [
            column((region.name, form), time + weight * costs.noise.get(region.name, {}).get(form, 0.0))
            for form, time in costs.time_us[region.name].items()
        ]
        rows.append(dict.fromkeys(names, 1.0))
        low.append(1.0)
        high.append(1.0)
    binaries = len(objective)

    def integer_state(region: Region | None) -> dict[int, float]:
        """Linear form that is 1 where the region works on integers at its tensors."""
        if region is None:
            return {}
        offered = costs.time_us[region.name]
        return {columns[region.name, form]: 1.0 for form in offered if form in _INTEGER_STATES}

    for tensor, producer, readers in _tensors(regions, outputs):
        border = costs.borders.get(tensor)
        if border is None:
            continue
        made = {} if _makes_floats(producer, read_as_integers=_may_be_integers(readers)) else integer_state(producer)
        for reader in readers:
            needed = integer_state(reader)
            quantize = column((tensor, "quantize"), border.quantize_us)
            rows.append({quantize: 1.0} | _minus(made, needed))
            low.append(0.0)
            high.append(np.inf)
            dequantize = column((tensor, "dequantize"), border.dequantize_us)
            rows.append({dequantize: 1.0} | _minus(needed, made))
            low.append(0.0)
            high.append(np.inf)
    data = [(index, key, value) for index, row in enumerate(rows) for key, value in row.items()]
    where = ([each[0] for each in data], [each[1] for each in data])
    matrix = coo_array(([each[2] for each in data], where), shape=(len(rows), len(objective)))
    integrality = np.array([1] * binaries + [0] * (len(objective) - binaries))
    result = solve(
        np.array(objective),
        constraints=LinearConstraint(matrix.tocsr(), np.array(low), np.array(high)),
        integrality=integrality,
        bounds=Bounds(0, 1),
        options={"time_limit": 10.0},
    )
    return {
        region.name: form
        for region in regions
        for form in costs.time_us[region.name]
        if result.x is not None and result.x[columns[region.name, form]] > 0.5
    }


def _minus(plus: dict[int, float], minus: dict[int, float]) -> dict[int, float]:
    keys = {**plus, **minus}
    return {key: plus.get(key, 0.0) - minus.get(key, 0.0) for key in keys}


def _makes_floats(producer: Region | None, *, read_as_integers: bool) -> bool:
    """Return whether a tensor is floats whatever its producer works on. A Gemm chooses by its readers."""
    if producer is None or producer.kind in _FLOAT_OUTPUT:
        return True
    return producer.kind is Kind.GEMM and not read_as_integers


def _may_be_integers(readers: list[Region | None]) -> bool:
    return any(reader is not None and reader.kind is not Kind.FLOAT for reader in readers)


def _integers(placement: Placement, region: Region | None) -> bool:
    return region is not None and placement.get(region.name) in _INTEGER_STATES


def _tensors(
    regions: tuple[Region, ...], outputs: tuple[str, ...]
) -> list[tuple[str, Region | None, list[Region | None]]]:
    """Return (tensor, producer, readers); None stands for the world outside, which has floats."""
    producers = {region.output: region for region in regions}
    readers: dict[str, list[Region | None]] = {}
    for region in regions:
        for name in region.inputs:
            readers.setdefault(name, []).append(region)
    for name in outputs:
        readers.setdefault(name, []).append(None)
    return [(name, producers.get(name), found) for name, found in readers.items()]


_SOURCE, _SINK = 0, 1
# Capacities are int32 of nanoseconds.
_NS_PER_US = 1000.0
_INFINITE = 1.0e6


class _Network:
    """An s-t network; the source's side of a minimum cut is the set of regions left in floats."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._edges: dict[tuple[int, int], int] = {}

    def node(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names) + 2)

    def edge(self, tail: int, head: int, capacity_us: float) -> None:
        capacity = round(min(max(capacity_us, 0.0), _INFINITE) * _NS_PER_US)
        self._edges[tail, head] = min(self._edges.get((tail, head), 0) + capacity, round(_INFINITE * _NS_PER_US))

    def source_side(self) -> set[int]:
        from scipy.sparse import csr_array  # noqa: PLC0415 - slow to import
        from scipy.sparse.csgraph import maximum_flow  # noqa: PLC0415

        size = len(self._names) + 2
        tails, heads = zip(*self._edges, strict=True)
        capacity = csr_array((np.array(list(self._edges.values()), np.int32), (tails, heads)), shape=(size, size))
        residual = csr_array(capacity - maximum_flow(capacity, _SOURCE, _SINK).flow)
        seen, queue = {_SOURCE}, deque([_SOURCE])
        while queue:
            node = queue.popleft()
            span = slice(residual.indptr[node], residual.indptr[node + 1])
            for head, left in zip(residual.indices[span], residual.data[span], strict=True):
                if left > 0 and int(head) not in seen:
                    seen.add(int(head))
                    queue.append(int(head))
        return seen


def _add_border(
    network: _Network, border: Border, producer: Region | None, readers: list[Region | None], tensor: str
) -> None:
    """Charge one tensor's border: floats made and integers read, or integers made and floats read."""
    made = _SOURCE
    if producer is not None and not _makes_floats(producer, read_as_integers=_may_be_integers(readers)):
        made = network.node(producer.name)
    quantize = network.node(f"{tensor}\0quantize")
    network.edge(made, quantize, border.quantize_us)
    dequantize = network.node(f"{tensor}\0dequantize")
    if made != _SOURCE:
        network.edge(dequantize, made, border.dequantize_us)
    for reader in readers:
        node = _SOURCE if reader is None else network.node(reader.name)
        network.edge(quantize, node, _INFINITE)
        network.edge(node, dequantize, _INFINITE)
