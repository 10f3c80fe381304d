"""Costs read from the runtime's own profile: time per region and format, and what a border costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.forge.graph import Graph
from edgewise.forge.placement import Border
from edgewise.forge.regions import Region
from edgewise.forge.tasks.base import Feeds
from edgewise.runtimes.base import KernelTime, Runtime

_BORDER_KINDS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_ADDED = ("/raw", "/q", "/dq", "/product", "/pooled")
_PROBE_SIZES = (1 << 10, 1 << 14, 1 << 17)


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


class BorderFit(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one QuantizeLinear and one DequantizeLinear: `call + element * elements`, microseconds."""

    quantize_call_us: float
    quantize_element_us: float
    dequantize_call_us: float
    dequantize_element_us: float

    def border(self, elements: int) -> Border:
        """Return the border cost of a tensor with so many elements."""
        return Border(
            quantize_us=self.quantize_call_us + self.quantize_element_us * elements,
            dequantize_us=self.dequantize_call_us + self.dequantize_element_us * elements,
        )


def profiled(
    runtime: Runtime, model: bytes, graph: Graph, regions: tuple[Region, ...], feeds: Sequence[Feeds], *, threads: int, rounds: int
) -> Profile:
    """Profile a variant and give every kernel to the region it computes."""
    owners = {name: region.name for region in regions for index in region.nodes for name in graph.nodes[index].output if name}
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


def fit_borders(runtime: Runtime, *, threads: int, rounds: int = 12) -> BorderFit:
    """Measure QuantizeLinear and DequantizeLinear at several sizes and fit a line through each."""
    sizes, model = np.array(_PROBE_SIZES), _border_model()
    feeds = {f"x{size}": np.linspace(-1, 1, size, dtype=np.float32) for size in _PROBE_SIZES}
    kernels = runtime.profile(model, (feeds,), threads=threads, rounds=rounds)
    fitted: list[float] = []
    for kind, prefix in (("QuantizeLinear", "q"), ("DequantizeLinear", "d")):
        times = [next(k.time_us for k in kernels if k.kind == kind and f"{prefix}{size}" in k.origins) for size in _PROBE_SIZES]
        # Weighted by 1/size, or the largest would decide the constant too.
        slope, call = np.polyfit(sizes, times, 1, w=1.0 / np.sqrt(sizes))
        fitted += [max(float(call), 0.0), max(float(slope), 0.0)]
    return BorderFit(
        quantize_call_us=fitted[0],
        quantize_element_us=fitted[1],
        dequantize_call_us=fitted[2],
        dequantize_element_us=fitted[3],
    )


def borders(fit: BorderFit, tensors: Iterable[str], elements: Mapping[str, int]) -> dict[str, Border]:
    """Return the border cost of every tensor whose size is known."""
    return {name: fit.border(elements[name]) for name in tensors if name in elements}


def _owner(origins: tuple[str, ...], owners: Mapping[str, str]) -> str | None:
    for origin in origins:
        name = origin
        for suffix in _ADDED:
            name = name.removesuffix(suffix)
        if name in owners:
            return owners[name]
    return None


def _border_model() -> bytes:
    """Return a model that quantizes and dequantizes one input per size; an Add between keeps both alive."""
    nodes, inputs, outputs = [], [], []
    for size in _PROBE_SIZES:
        inputs.append(helper.make_tensor_value_info(f"x{size}", TensorProto.FLOAT, [size]))
        outputs.append(helper.make_tensor_value_info(f"d{size}", TensorProto.FLOAT, [size]))
        outputs.append(helper.make_tensor_value_info(f"q{size}", TensorProto.UINT8, [size]))
        nodes.append(helper.make_node("QuantizeLinear", [f"x{size}", "scale", "zero"], [f"q{size}"], name=f"q{size}"))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{size}", "scale", "zero"], [f"d{size}"], name=f"d{size}"))
    values = [numpy_helper.from_array(np.array(0.01, np.float32), "scale"), numpy_helper.from_array(np.array(128, np.uint8), "zero")]
    graph = helper.make_graph(nodes, "borders", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(onnx.ModelProto.SerializeToString(model))
