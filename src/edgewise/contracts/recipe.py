"""Recipes: for every region its number format, granularity, range method and rounding."""

from __future__ import annotations

from enum import StrEnum

from msgspec import UNSET, UnsetType

from edgewise.contracts.base import Value


class Format(StrEnum):
    """How a region computes. `a` are activations, `w` weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8_STATIC = "int8_static"
    """w int8, a int8 with ranges fixed at calibration."""
    INT8_DYNAMIC = "int8_dynamic"
    """w int8, a uint8 with a range taken from each input at run time."""
    INT16_STATIC = "int16_static"
    """w int8, a uint16 with ranges fixed at calibration."""
    INT8_WEIGHT = "int8_weight"
    """w int8 in blocks, a fp32 (MatMulNBits)."""
    INT4_WEIGHT = "int4_weight"
    """w int4 in blocks, a fp32 (MatMulNBits)."""


class Granularity(StrEnum):
    """How many scales a weight has."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"


class RangeMethod(StrEnum):
    """How the range of an activation is taken from its calibration histogram."""

    MIN_MAX = "min_max"
    PERCENTILE_9999 = "percentile_99.99"
    PERCENTILE_99999 = "percentile_99.999"
    ENTROPY = "entropy"
    MSE = "mse"
    OCTAV = "octav"


class Rounding(StrEnum):
    """How weights are put on their grid."""

    NEAREST = "nearest"
    GPTQ = "gptq"


class Signs(StrEnum):
    """Sign convention of activations and weights of static int8."""

    U8S8 = "u8s8"
    S8S8 = "s8s8"


class RegionRecipe(Value, kw_only=True):
    """What one region is lowered to. Fields that a format does not use keep their default."""

    region: str
    format: Format
    granularity: Granularity = Granularity.CHANNEL
    range_method: RangeMethod = RangeMethod.MIN_MAX
    rounding: Rounding = Rounding.NEAREST
    block: int = 0
    smooth_alpha: float | None = None
    """SmoothQuant's migration strength; None leaves the region's input as it is."""
    bias_correction: bool = False


class Recipe(Value, kw_only=True):
    """One recipe for the whole graph; regions that are not named stay fp32."""

    name: str
    regions: tuple[RegionRecipe, ...]
    signs: Signs = Signs.U8S8
    equalise: bool = False
    """Cross-layer equalisation of weights before quantization."""
    clip: dict[str, float] | UnsetType = UNSET
    """The share of the range that its method finds which each named tensor is given; the others are given all of it.

    Left out where there is none: a sealed recipe of before must encode as it was."""
    seed: int = 0
