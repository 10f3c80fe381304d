"""Whether a quantized weight is explained by its fp32 weight, row by row, and what it is otherwise.

Errors are in steps of the row's own grid: (w_q - w) / step. Rounding to nearest leaves at most half a step,
rounding either way (AdaRound) one, error feedback (GPTQ) a few, alike in all rows of a layer.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.verify.weights import Weight

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

# Half a step, and what folding or float32 arithmetic adds to it.
_NEAREST = 0.51
_EITHER_WAY = 1.01
# The same where fp32 was rescaled by factors that were read from rounded weights: they are right to about a percent.
_RESCALED = 2.0
# Root mean square in steps: 0.29 for nearest, 0.4 to 0.9 for error feedback.
_ROUNDING_RMS = 0.29
_FEEDBACK_RMS = 1.25
_FEEDBACK_FACTOR = 3.0
_FEEDBACK_MOST = 4.0
# A row fits a gain or an offset where that leaves no more than rounding does.
_FIT_RMS = 0.75
_GAIN = 0.02
_OFFSET = 0.4
# Of the rows of a layer, so many keep to one way of rounding before it is called the layer's.
_HABIT = 0.4
# Error feedback leaves many short rows (of depthwise convolutions) as nearest: so many others make it the layer's way.
_OTHERS, _FEWEST_OTHERS = 0.05, 3
# Weights kept as floats are the same up to folding.
_FOLDING = 1e-4


class How(StrEnum):
    """How the rows of one layer come from fp32's."""

    SAME = "as in fp32"
    NEAREST = "rounded to nearest"
    LEARNED = "rounded up, down or with error feedback"
    RESCALED = "rescaled"
    UNRELATED = "unrelated"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row that its fp32 row does not explain."""

    row: int
    index: int
    """The element furthest off."""
    expected: float
    found: float
    beyond: int
    """Elements that rounding of this layer's kind does not explain."""
    gain: float | None = None
    """The row is fp32's times this, rounded."""
    offset: float | None = None
    """The row is fp32's plus so many steps, rounded: a wrong zero point."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one layer."""

    how: How
    rows: int
    elements: int
    beyond_step: float
    """Share of the weights more than one step from fp32's."""
    changes: tuple[Change, ...]
    gain: float | None = None
    """The one gain of all changed rows, where there is one."""
    bias_shift: float = 0.0
    """Mean square, over channels, of what was added to the bias; 0 where a bias is not stored with the layer."""


def explain(reference: Weight, variant: Weight, *, is_rescaled: bool = False, is_learned: bool = False) -> Explained:
    """Compare one layer; `is_rescaled` where fp32's weights are known up to factors from the variant only.

    `is_learned` where the layer is known to be rounded with error feedback.

    Raises ValueError where the shapes differ.
    """
    if reference.rows.shape != variant.rows.shape:
        raise ValueError(f"{reference.rows.shape} and {variant.rows.shape}")
    errors = _errors(reference.rows, variant)
    largest = np.abs(errors).max(axis=1)
    rms = np.sqrt(np.mean(errors.astype(np.float64) ** 2, axis=1))
    how, limit, most_rms = _habit(variant, largest, rms, is_learned=is_learned)
    limit = max(limit, _RESCALED) if is_rescaled else limit
    suspects = np.flatnonzero((largest > limit) | (rms > most_rms))
    changes = tuple(_change(int(row), reference.rows[row], variant, errors[row], limit) for row in suspects)
    gains = [each.gain for each in changes if each.gain is not None]
    one = gains and len(gains) == len(changes) and np.ptp(gains) <= _GAIN * abs(np.mean(gains))
    if how is How.UNRELATED and len(gains) == len(changes):
        how = How.RESCALED
    return Explained(
        how=how,
        rows=len(errors),
        elements=errors.size,
        beyond_step=float(np.mean(np.abs(errors) > _EITHER_WAY)) if variant.step is not None else 0.0,
        changes=changes,
        gain=float(np.mean(gains)) if one else None,
        bias_shift=_bias_shift(reference, variant),
    )


def _bias_shift(reference: Weight, variant: Weight) -> float:
    if reference.bias is None or variant.bias is None or reference.bias.shape != variant.bias.shape:
        return 0.0
    return float(np.mean((variant.bias.astype(np.float64) - reference.bias) ** 2))


def _errors(rows: FloatArray, variant: Weight) -> FloatArray:
    """Return the errors [out, k] in steps; what saturation explains is none."""
    difference = variant.rows - rows
    if variant.step is None:
        # Floats: in units that make folding's own rounding a small part of half a step.
        unit = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) * _FOLDING
        return np.asarray(difference / unit, np.float32)
    steps = difference / np.maximum(np.abs(variant.step), np.finfo(np.float32).tiny)
    if variant.edge is not None:
        saturated = variant.edge & (np.abs(rows) > np.abs(variant.rows)) & (rows * variant.rows >= 0)
        steps = np.where(saturated, 0, steps)
    return np.asarray(steps, np.float32)


def _habit(variant: Weight, largest: FloatArray, rms: DoubleArray, *, is_learned: bool) -> tuple[How, float, float]:
    """Return how most rows were rounded, and the largest error and root mean square that goes with it."""
    if variant.step is None:
        return How.SAME, 1.0, 1.0
    usual = float(np.quantile(largest, _HABIT))
    others = int(((largest > _NEAREST) & (largest <= _FEEDBACK_MOST) & (rms <= _FEEDBACK_RMS)).sum())
    if not is_learned and usual <= _NEAREST and others < max(_FEWEST_OTHERS, _OTHERS * len(largest)):
        return How.NEAREST, _NEAREST, np.inf
    middle = float(np.quantile(rms, _HABIT))
    if middle <= _FEEDBACK_RMS:
        return How.LEARNED, max(_FEEDBACK_MOST, 4.0 * usual), _FEEDBACK_FACTOR * max(middle, _ROUNDING_RMS)
    return How.UNRELATED, _EITHER_WAY, np.inf


def _change(row: int, rows: FloatArray, variant: Weight, errors: FloatArray, limit: float) -> Change:
    at = int(np.abs(errors).argmax())
    gain, offset = _fit(rows, variant, row)
    return Change(
        row=row,
        index=at,
        expected=float(rows[at]),
        found=float(variant.rows[row, at]),
        beyond=int((np.abs(errors) > min(limit, _EITHER_WAY)).sum()),
        gain=gain,
        offset=offset,
    )


def _fit(rows: FloatArray, variant: Weight, row: int) -> tuple[float | None, float | None]:
    """Return (gain, None) or (None, offset in steps) where one of them explains a row, else (None, None)."""
    found = variant.rows[row].astype(np.float64)
    w = rows.astype(np.float64)
    step = np.abs(variant.step[row]).astype(np.float64) if variant.step is not None else np.full(w.shape, 1e-6)
    free = ~variant.edge[row] if variant.edge is not None else np.ones(w.shape, np.bool_)
    if free.sum() < 4:
        return None, None
    w, found, step = w[free], found[free], step[free]
    square = float(w @ w)
    if square > 0:
        gain = float(w @ found) / square
        if abs(gain - 1) > _GAIN and _rms((found - gain * w) / step) <= max(_FIT_RMS, 0.02 * _rms(found / step)):
            return gain, None
    offset = float(np.median((found - w) / step))
    if abs(offset) > _OFFSET and _rms((found - w) / step - offset) <= _FIT_RMS:
        return None, offset
    return None, None


def _rms(values: DoubleArray) -> float:
    return float(np.sqrt(np.mean(values**2)))
