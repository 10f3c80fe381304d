"""Target profiles: a class of device and what it runs fast."""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Format, Signs


class RuntimeName(StrEnum):
    """The runtimes that edgewise can execute a variant with."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class PowerModel(Value, kw_only=True):
    """A linear model of power: `idle_w + active_w * busy cores`, in watts.

    Energy figures that come from it carry the provenance `modelled`.
    """

    idle_w: float
    active_w: float


class Probe(Value, kw_only=True):
    """What `edgewise targets probe` measured on a machine.

    Rates in 10**9 multiply-adds per second; border costs as microseconds per kernel call plus
    nanoseconds per element, as fitted over several sizes.
    """

    fp32_gmacs: float
    int8_gmacs: float
    memory_gib_per_s: float
    quantize_call_us: float
    quantize_element_ns: float
    dequantize_call_us: float
    dequantize_element_ns: float


class Target(Value, kw_only=True):
    """A class of device: processor, threads, memory, runtimes and the formats it runs fast."""

    name: str
    description: str = ""
    processor: str = ""
    instruction_sets: tuple[str, ...] = ()
    threads: int = 1
    memory_mib: float | None = None
    runtimes: tuple[RuntimeName, ...] = (RuntimeName.ONNXRUNTIME,)
    formats: tuple[Format, ...] = (
        Format.FP32,
        Format.INT8_STATIC,
        Format.INT8_DYNAMIC,
        Format.INT8_WEIGHT,
        Format.INT4_WEIGHT,
    )
    signs: Signs = Signs.U8S8
    per_channel: bool = True
    power: PowerModel | None = None
    probe: Probe | None = None
