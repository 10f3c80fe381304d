"""Events per trial (crashes, disagreements) with the device as the unit.

Events come in clusters: a broken device has a hundred crashes, and says as much as one. Counts are therefore divided by
their design effect, how much more they vary between devices than a Poisson count would (Rao and Scott, Biometrics 48,
1992, 577-585, section 3), and exact bounds are made of these effective counts. Whether canaries are worse than controls
is told without them, in `device_assignments`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.numerics.tails import binomial_at_least, binomial_at_most, share_above, share_below

DoubleArray = NDArray[np.float64]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Events of trials, as effective counts: not whole, and no more events than trials."""

    events: float
    trials: float

    @property
    def rate(self) -> float:
        """Events per trial; nan without trials."""
        return self.events / self.trials if self.trials else math.nan

    def p_above(self, limit: float) -> float:
        """Return the one-sided exact p-value against "the rate is at most `limit`"."""
        return binomial_at_least(self.events, self.trials, limit)

    def p_below(self, limit: float) -> float:
        """Return the one-sided exact p-value against "the rate is at least `limit`"."""
        return binomial_at_most(self.events, self.trials, limit)

    def bounds(self, level: float) -> tuple[float, float]:
        """Return the one-sided exact lower and upper bound, each at this level."""
        return share_below(self.events, self.trials, level), share_above(self.events, self.trials, level)


def design_effect(events: DoubleArray, trials: DoubleArray) -> float:
    """Return Pearson's chi-square over its degrees of freedom, at least 1, for devices [n] of one arm."""
    if events.size < 2 or not events.sum():
        return 1.0
    expected = trials * (events.sum() / trials.sum())
    kept = expected > 0
    if kept.sum() < 2:
        return 1.0
    chi = ((events[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    return max(float(chi) / (int(kept.sum()) - 1), 1.0)


def shares(
    events: DoubleArray, trials: DoubleArray, controls_events: DoubleArray, controls_trials: DoubleArray
) -> tuple[Share, Share]:
    """Return the effective counts of canaries [n] and controls [m], both divided by the larger design effect.

    The larger one: a single broken device among the canaries widens theirs, not that of forty quiet controls.
    """
    divisor = max(design_effect(events, trials), design_effect(controls_events, controls_trials))
    return (
        Share(events=float(events.sum()) / divisor, trials=float(trials.sum()) / divisor),
        Share(events=float(controls_events.sum()) / divisor, trials=float(controls_trials.sum()) / divisor),
    )


def difference_bounds(canaries: Share, controls: Share, level: float) -> tuple[float, float]:
    """Return one-sided lower and upper bounds of the difference of rates, each at this level.

    From the bounds of both rates (Newcombe, Statistics in Medicine 17, 1998, 873-890, method 10, with exact bounds).
    """
    low, high = canaries.bounds(level)
    controls_low, controls_high = controls.bounds(level)
    difference = canaries.rate - controls.rate
    below = math.hypot(canaries.rate - low, controls_high - controls.rate)
    above = math.hypot(high - canaries.rate, controls.rate - controls_low)
    return difference - below, difference + above
