"""From the noise of a point to its cause, and what to try."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec
import numpy as np

from edgewise.contracts.recipe import RangeMethod
from edgewise.forge.verify.explain import Explained, How
from edgewise.forge.verify.noise import Noise
from edgewise.numerics.grid import Grid
from edgewise.numerics.range_mse import grid_error
from edgewise.numerics.ranges import choose

# A grid that loses so much against the best one of its bits for the observed values is badly placed (dB).
LOST_DB = 6.0
# One channel reaches so many times further than the median one.
_OUTLIER = 8.0
# A bias is the cause where its change makes so much of the noise.
_OF_NOISE = 0.5


class Cause(StrEnum):
    """Why a region adds the noise it adds."""

    SATURATION = "saturation"
    RANGE = "range too wide"
    ZERO = "zero point"
    OUTLIER = "outlier channel"
    ROUNDING = "rounding of the activation"
    WEIGHT_SCALE = "scale of the weights"
    WEIGHT_ZERO = "zero point of the weights"
    WEIGHT_CHANGED = "changed weights"
    WEIGHT_COARSE = "rounding of the weights"
    INPUT = "scale, zero point or bias"
    NONE = "none"


ADVICE = {
    Cause.SATURATION: "calibrate with data like this, or choose a range method that clips less",
    Cause.RANGE: "look for outliers in the calibration data; try the range methods mse or percentile",
    Cause.ZERO: "calibrate again: the zero point does not belong to this range",
    Cause.OUTLIER: "equalise the channels, smooth the outliers into the weights, or leave this region in 16 bits",
    Cause.ROUNDING: "leave this region in 16 bits or fp32",
    Cause.WEIGHT_SCALE: "quantize this layer's weights again from fp32",
    Cause.WEIGHT_ZERO: "quantize this layer's weights again from fp32; weights want the zero point 0",
    Cause.WEIGHT_CHANGED: "quantize this layer's weights again from fp32, and find out what changed them",
    Cause.WEIGHT_COARSE: "quantize the weights per channel, reconstruct their rounding, or leave this region in fp32",
    Cause.INPUT: "check the scales and zero points around this layer, and that its bias is stored at scale_x * scale_w",
    Cause.NONE: "",
}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One point, in figures a person reads. Ratios in decibel; inf where there is no noise."""

    noise: Noise
    total_db: float
    """fp32's values against the variant's: own and inherited error."""
    own_db: float
    """Without what came in with the inputs."""
    clipping_db: float
    rounding_db: float
    rest_db: float
    clipped: float
    """Share of the values beyond the ends of the grid."""
    width: float | None
    """How many times wider the grid is than the values of fp32, calibration data among them; None without a grid."""
    width_on_test: float | None
    """The same of the test split alone."""
    shift: float
    """How much of the width of fp32's values the grid reaches too far at one end and too short at the other;
    positive where it lies too high."""
    gain: float
    """Slope of the variant's values over those expected."""
    offset: float
    """The furthest mean error of a channel, over the root mean square of all values."""
    as_meant: float | None
    """The grid's width over that which its recipe gives on the values seen; None without a recipe."""
    share: float
    """Of the range that the method finds, what the recipe gives the tensor on purpose."""
    is_calibrated: bool
    """Whether the grid is the range that the run kept: what the recipe's method gave on the calibration data."""
    lost_db: float
    """How much noise the best range for the values seen would save against the grid's own."""
    cause: Cause

    @property
    def name(self) -> str:
        """The tensor, which is the region's name."""
        return self.noise.point.reference


def diagnose(
    noise: Noise,
    weights: Explained | None,
    method: RangeMethod | None,
    calibrated: tuple[float, float] | None = None,
    share: float = 1.0,
) -> Diagnosis:
    """Put a point's sums into words.

    `method` is how its range was taken, where a recipe says so, `calibrated` what that gave on the calibration
    data, where the run kept it, and `share` how much of that the tensor was given.
    """
    on_purpose = max(share, 1.0)
    gain, offset = _regression(noise)
    lost = lost_db(noise)
    return Diagnosis(
        noise=noise,
        total_db=decibel(noise.signal, noise.total),
        own_db=decibel(noise.made, noise.own),
        clipping_db=decibel(noise.made, noise.clipping),
        rounding_db=decibel(noise.made, noise.rounding),
        rest_db=decibel(noise.made, noise.rest),
        clipped=noise.clipped / noise.count,
        width=_width(noise, *_times((min(noise.low, noise.pool[0]), max(noise.high, noise.pool[1])), on_purpose)),
        width_on_test=_width(noise, *_times((noise.low, noise.high), on_purpose)),
        shift=_shift(noise),
        gain=gain,
        offset=offset,
        as_meant=_as_meant(noise, method, share),
        share=share,
        is_calibrated=calibrated is not None and _reaches(noise.point.grid, *_times(calibrated, share)),
        lost_db=lost,
        cause=_cause(noise, weights, lost),
    )


def decibel(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise): inf without noise, nan where either is not finite."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _width(noise: Noise, seen_low: float, seen_high: float) -> float | None:
    """Return the grid's width over the observed one, both widened to 0; of a symmetric grid, the halves."""
    grid = noise.point.grid
    if grid is None or grid.axis is not None:
        return None
    low, high = float(grid.low), float(grid.high)
    if low < 0 and high > 0 and abs(low + high) <= 2.5 * float(grid.scale):
        found, seen = max(-low, high), max(-seen_low, seen_high)
    else:
        found, seen = high - low, seen_high - seen_low
    return found / seen if seen > 0 else None


def _times(ends: tuple[float, float], share: float) -> tuple[float, float]:
    return ends[0] * share, ends[1] * share


def _as_meant(noise: Noise, method: RangeMethod | None, share: float) -> float | None:
    grid = noise.point.grid
    if method is None or grid is None or noise.histogram.count == 0:
        return None
    return _width(noise, *_times(choose(noise.histogram, method, bits=8 * grid.dtype.itemsize), share))


def _reaches(grid: Grid | None, low: float, high: float) -> bool:
    """Say whether a grid reaches as far as a range does, up to the steps by which it is put onto a zero point."""
    if grid is None or grid.axis is not None:
        return False
    reach = max(-float(grid.low), float(grid.high))
    return abs(reach - max(-low, high)) <= 2 * float(grid.scale)


def _shift(noise: Noise) -> float:
    grid = noise.point.grid
    low, high = min(noise.low, noise.pool[0]), max(noise.high, noise.pool[1])
    seen = high - low
    if grid is None or grid.axis is not None or seen <= 0:
        return 0.0
    below, above = (low - float(grid.low)) / seen, (float(grid.high) - high) / seen
    if min(below, above) >= 0 or max(below, above) <= 0:
        return 0.0
    return math.copysign(min(abs(below), abs(above)), above)


def _regression(noise: Noise) -> tuple[float, float]:
    count, f, g, ff, fg, _ = noise.sums
    total = count.sum()
    if total < 2:
        return 1.0, 0.0
    mean_f, mean_g = f.sum() / total, g.sum() / total
    variance = ff.sum() / total - mean_f**2
    gain = (fg.sum() / total - mean_f * mean_g) / variance if variance > 1e-12 * ff.sum() / total else 1.0
    live = count > 1
    scale = math.sqrt(noise.made / noise.count)
    offsets = np.abs((g[live] - f[live]) / count[live])
    return float(gain), float(offsets.max() / scale) if offsets.size and scale > 0 else 0.0


def _cause(noise: Noise, weights: Explained | None, lost: float) -> Cause:
    if noise.own == 0:
        return Cause.NONE
    if noise.point.grid is None or noise.rest >= max(noise.clipping, noise.rounding):
        return _weight_cause(noise, weights)
    if noise.clipping >= noise.rounding:
        return Cause.SATURATION
    middle = float(np.median(noise.peaks))
    if middle > 0 and noise.peaks.max() > _OUTLIER * middle:
        return Cause.OUTLIER
    return Cause.RANGE if lost > LOST_DB else Cause.ROUNDING


def _weight_cause(noise: Noise, weights: Explained | None) -> Cause:
    if weights is None:
        return Cause.INPUT if noise.point.grid is not None else Cause.ROUNDING
    if any(each.offset is not None for each in weights.changes):
        return Cause.WEIGHT_ZERO
    if any(each.gain is not None for each in weights.changes):
        return Cause.WEIGHT_SCALE
    if weights.changes:
        return Cause.WEIGHT_CHANGED
    if weights.bias_shift > _OF_NOISE * noise.own / noise.count:
        return Cause.INPUT
    return Cause.INPUT if weights.how is How.SAME else Cause.WEIGHT_COARSE


def lost_db(noise: Noise) -> float:
    """Return how much noise (dB) the best range for the observed values would save against the grid's own."""
    grid = noise.point.grid
    if grid is None or grid.axis is not None or noise.histogram.count == 0:
        return 0.0
    bits = 8 * grid.dtype.itemsize
    seen = noise.histogram
    low, high = choose(seen, RangeMethod.MSE, bits=bits)
    lows, highs = np.array([low, float(grid.low)]), np.array([high, float(grid.high)])
    best, own = grid_error(seen.inexact_counts, seen.first, seen.width, lows, highs, bits=bits)
    return 10 * math.log10(own / best) if best > 0 and own > 0 else 0.0
