"""How often a false alarm may be, and how much is looked at."""

from __future__ import annotations

import math

from edgewise.contracts.base import Value


class DriftPolicy(Value, kw_only=True):
    """Over `horizon_inputs` good inputs there is any false alarm with at most the chance `chance`."""

    horizon_inputs: float = 1e7
    chance: float = 0.01
    every: int = 1
    """Only every so many-th inference is looked at: frames of a camera are too alike to count one by one."""
    epsilon: float | None = None
    """Where given, what leaves the device is noised: differential privacy of one input, for each report."""

    def __post_init__(self) -> None:
        """Raise ValueError where a number is out of its range."""
        if not (0 < self.chance < 1 and math.isfinite(self.horizon_inputs) and self.horizon_inputs >= 1):
            raise ValueError("`chance` must be between 0 and 1, `horizon_inputs` at least 1")
        if self.every < 1:
            raise ValueError("`every` must be at least 1")
        if self.epsilon is not None and not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError("`epsilon` must be above 0")
