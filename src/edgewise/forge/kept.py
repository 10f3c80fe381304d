"""What calibration data determined of a variant, kept beside it: with fp32 and the recipe it makes every bit again.

A recipe says how: which format, which range method, which rounding. The ranges that the method found, the codes that
GPTQ chose, the shifts of biases and the divisors of smoothing come from data, and are kept here.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import msgspec
import numpy as np

from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Format, RangeMethod, Recipe, Rounding
from edgewise.forge.cache import write_atomically
from edgewise.forge.calibrate import Calibration
from edgewise.forge.graph import Array, Graph
from edgewise.forge.parameters import Parameters, WeightValues
from edgewise.forge.ranges import RangeKey
from edgewise.forge.regions import Region
from edgewise.forge.weights import Corrections, Known, parameters_for
from edgewise.numerics.histogram import Histogram

KEPT = Path(".edgewise") / "model" / "calibrated.npz"
_HEADER, _FORMAT = "header", 1
# A kept file is about as large as the variant.
_MOST_BYTES = 4 << 30


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a build that the recipe alone does not determine."""

    tensors: tuple[str, ...]
    """All calibrated activations, in their order."""
    ranges: Mapping[RangeKey, tuple[float, float]]
    corrections: Corrections

    def parameters(self, graph: Graph, regions: tuple[Region, ...], recipe: Recipe) -> Parameters:
        """Return the numbers that `lower` writes. Raises DataError where a range is missing."""
        calibration = Calibration(
            histograms={name: Histogram() for name in self.tensors}, channels={}, elements={}, samples=0
        )
        known = Known(ranges=dict(self.ranges))
        return parameters_for(graph, regions, recipe, calibration, self.corrections, known)


class _Range(Value, kw_only=True):
    tensor: str
    method: RangeMethod
    bits: int
    signed: bool
    low: float
    high: float


class _Header(Value, kw_only=True):
    """`arrays` says what each array of the file is: (field of Corrections, region, part)."""

    version: int
    tensors: tuple[str, ...]
    ranges: tuple[_Range, ...]
    arrays: tuple[tuple[str, str, str], ...]


def kept_of(
    tensors: tuple[str, ...], ranges: Mapping[RangeKey, tuple[float, float]], corrections: Corrections, recipe: Recipe
) -> Kept:
    """Return what a recipe uses of everything that a run worked out."""
    gptq = {each.region: each.format for each in recipe.regions if each.rounding is Rounding.GPTQ}
    shifted = {each.region for each in recipe.regions if each.bias_correction}
    wanted = {
        "rounded": {name for name, form in gptq.items() if form is not Format.INT8_DYNAMIC},
        "rounded_dynamic": {name for name, form in gptq.items() if form is Format.INT8_DYNAMIC},
        "bias_shift": shifted - gptq.keys(),
        "rounded_bias_shift": shifted & gptq.keys(),
        "smooth": {each.region for each in recipe.regions if each.smooth_alpha is not None},
    }
    used = {
        field: {name: value for name, value in getattr(corrections, field).items() if name in names}
        for field, names in wanted.items()
    }
    return Kept(tensors=tensors, ranges=dict(ranges), corrections=Corrections(**used))


def write_kept(path: Path, kept: Kept) -> None:
    """Write the file, whole or not at all. Raises OutputError."""
    arrays = list(_arrays(kept.corrections))
    header = _Header(
        version=_FORMAT,
        tensors=kept.tensors,
        ranges=tuple(
            _Range(tensor=tensor, method=method, bits=bits, signed=signed, low=low, high=high)
            for (tensor, method, bits, signed), (low, high) in kept.ranges.items()
        ),
        arrays=tuple(key for key, _ in arrays),
    )
    made = io.BytesIO()
    named: dict[str, Array] = {str(at): value for at, (_, value) in enumerate(arrays)}
    np.savez(made, **{_HEADER: np.frombuffer(msgspec.json.encode(header), np.uint8)}, **named)  # type: ignore[arg-type]  # its other keyword is no name of ours
    write_atomically(path, made.getvalue())


def read_kept(path: Path) -> Kept | None:
    """Read the file; None where there is none, or none that this version reads."""
    try:
        if path.stat().st_size > _MOST_BYTES or not is_zipfile(path):
            return None
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            header = msgspec.json.decode(held[_HEADER].tobytes(), type=_Header)
            arrays = {key: held[str(at)] for at, key in enumerate(header.arrays)}
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, zlib.error, RuntimeError, msgspec.DecodeError):
        return None
    if header.version != _FORMAT:
        return None
    fields: dict[str, dict[str, object]] = {name: {} for name in Corrections.__struct_fields__}
    for (field, region, part), value in arrays.items():
        if field not in fields:
            return None
        if part == "values":
            scale = arrays.get((field, region, "scale"))
            if scale is None:
                return None
            fields[field][region] = WeightValues(values=value, scale=scale)
        elif not part:
            fields[field][region] = value
    return Kept(
        tensors=header.tensors,
        ranges={(each.tensor, each.method, each.bits, each.signed): (each.low, each.high) for each in header.ranges},
        corrections=Corrections(**fields),  # type: ignore[arg-type]  # each field holds what its name says
    )


def _arrays(corrections: Corrections) -> Iterator[tuple[tuple[str, str, str], Array]]:
    for field in Corrections.__struct_fields__:
        for region, value in getattr(corrections, field).items():
            if isinstance(value, WeightValues):
                yield (field, region, "values"), value.values
                yield (field, region, "scale"), value.scale
            else:
                yield (field, region, ""), value
