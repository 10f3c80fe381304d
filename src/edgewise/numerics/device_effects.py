"""What a release changed, with the device as the unit: requests of one device are not independent of one another.

Per device: the change of a log figure between a window before the rollout and one since. Per class: the mean change of
the canaries less that of the controls of the same time, a difference in differences: what a device always was cancels
in the first difference, what happened to everybody in the second.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.numerics.tails import student_quantile, student_tail

DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate in log units, its standard error and the degrees of freedom of that error."""

    estimate: float
    error: float
    degrees: float
    canaries: int
    controls: int

    def p_above(self, value: float) -> float:
        """Return the one-sided p-value against "the effect is at most `value`"."""
        return student_tail((self.estimate - value) / self.error, self.degrees)

    def p_below(self, value: float) -> float:
        """Return the one-sided p-value against "the effect is at least `value`"."""
        return student_tail((value - self.estimate) / self.error, self.degrees)

    def bounds(self, level: float) -> tuple[float, float]:
        """Return the one-sided lower and upper bound, each at this level."""
        reach = student_quantile(level, self.degrees) * self.error
        return self.estimate - reach, self.estimate + reach


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The variance of a device's change around the mean of its class, per arm."""

    canaries: float
    controls: float
    degrees: float


def spread(canaries: DoubleArray, of: IntArray, controls: DoubleArray, controls_of: IntArray) -> Spread | None:
    """Return the variance within classes, or None with fewer than 2 degrees of freedom.

    Changes [n] and [m], class numbers alike. Devices are assigned by hash, so both arms have one variance while a
    release changes nothing, and it is pooled: few canaries then do with the controls' degrees of freedom. A release
    that serves devices unevenly spreads its canaries wider; their own variance is taken where it is larger.
    """
    squares, freedom = _within(canaries, of)
    controls_squares, controls_freedom = _within(controls, controls_of)
    degrees = freedom + controls_freedom
    if degrees < 2:
        return None
    pooled = (squares + controls_squares) / degrees
    own = squares / freedom if freedom else 0.0
    return Spread(canaries=max(pooled, own), controls=pooled, degrees=float(degrees))


def effect(
    canaries: DoubleArray, of: IntArray, controls: DoubleArray, controls_of: IntArray, found: Spread
) -> Effect | None:
    """Return the effect over the classes that have canaries and controls, weighted by their canaries.

    For one class pass its devices alone. None where no class has both, or nothing varies.
    """
    size = int(max(of.max(initial=-1), controls_of.max(initial=-1))) + 1
    n, m = np.bincount(of, minlength=size), np.bincount(controls_of, minlength=size)
    both = (n > 0) & (m > 0)
    if not both.any():
        return None
    n, m = n[both], m[both]
    means = np.bincount(of, canaries, size)[both] / n
    controls_means = np.bincount(controls_of, controls, size)[both] / m
    weights = n / n.sum()
    variance = float(found.canaries * (weights**2 / n).sum() + found.controls * (weights**2 / m).sum())
    if not variance > 0:
        return None
    return Effect(
        estimate=float(weights @ (means - controls_means)),
        error=variance**0.5,
        degrees=found.degrees,
        canaries=int(n.sum()),
        controls=int(m.sum()),
    )


def _within(values: DoubleArray, of: IntArray) -> tuple[float, int]:
    """Return the sum of squares around the class means, and its degrees of freedom."""
    if not values.size:
        return 0.0, 0
    counts = np.bincount(of)
    means = np.bincount(of, values) / np.maximum(counts, 1)
    return float(((values - means[of]) ** 2).sum()), int(values.size - (counts > 0).sum())
