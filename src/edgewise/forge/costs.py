"""Costs read from the runtime's own profile: time per region and format, and what a border costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgewise.contracts.target import Probe
from edgewise.contracts.units import NS_PER_US
from edgewise.forge.graph import Graph
from edgewise.forge.placement import Border
from edgewise.forge.regions import Region
from edgewise.forge.tasks.base import Feeds
from edgewise.runtimes.base import KernelTime, Runtime

_BORDER_KINDS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_ADDED = ("/raw", "/q", "/dq", "/product", "/pooled")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One variant's kernels, by region. Times in microseconds per inference."""

    region_us: dict[str, float]
    border_us: float
    """QuantizeLinear and DequantizeLinear kernels together."""
    other_us: float
    """Kernels no region owns: layout reorders, transposes the runtime put in."""
    kernels: dict[str, KernelTime]
    """The slowest kernel of each region."""

    @property
    def total_us(self) -> float:
        """All kernels together."""
        return sum(self.region_us.values()) + self.border_us + self.other_us


def profiled(
    runtime: Runtime,
    model: bytes,
    graph: Graph,
    regions: tuple[Region, ...],
    feeds: Sequence[Feeds],
    *,
    threads: int,
    rounds: int,
) -> Profile:
    """Profile a variant and give every kernel to the region it computes."""
    owners = {
        name: region.name for region in regions for index in region.nodes for name in graph.nodes[index].output if name
    }
    region_us = {region.name: 0.0 for region in regions}
    slowest: dict[str, KernelTime] = {}
    border_us = other_us = 0.0
    for kernel in runtime.profile(model, tuple(feeds), threads=threads, rounds=rounds):
        owner = _owner(kernel.origins, owners)
        if kernel.kind in _BORDER_KINDS:
            border_us += kernel.time_us
        elif owner is None:
            other_us += kernel.time_us
        else:
            region_us[owner] += kernel.time_us
            if owner not in slowest or kernel.time_us > slowest[owner].time_us:
                slowest[owner] = kernel
    return Profile(region_us=region_us, border_us=border_us, other_us=other_us, kernels=slowest)


def border_of(probe: Probe, elements: int) -> Border:
    """Return the border cost of a tensor with so many elements, from what the target's probe measured."""
    return Border(
        quantize_us=probe.quantize_call_us + probe.quantize_element_ns * elements / NS_PER_US,
        dequantize_us=probe.dequantize_call_us + probe.dequantize_element_ns * elements / NS_PER_US,
    )


def _owner(origins: tuple[str, ...], owners: Mapping[str, str]) -> str | None:
    for origin in origins:
        name = origin
        for suffix in _ADDED:
            name = name.removesuffix(suffix)
        if name in owners:
            return owners[name]
    return None
