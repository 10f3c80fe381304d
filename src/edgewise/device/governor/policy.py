"""The numbers that the governor decides with."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget

LOW_MEMORY_SHARE = 0.05
"""Of the device's memory: below it memory is short, where the budget says nothing."""
BELOW_TRIP_C, WELL_BELOW_TRIP_C = 5.0, 12.0
"""How far below the kernel's own limit heat is met, and is over."""


class GovernorPolicy(Value, kw_only=True):
    """When to go to a lower variant, and when to come back. Each pair is a band of hysteresis.

    `late` and `comfortable` are shares of the deadline. Heat is not looked at where `hot_c` is None.
    """

    dwell_s: float = 2.0
    """Between two switches at least."""
    calm_s: float = 3.0
    """Pressure has to be gone for so long before a higher variant answers; doubled each time that was too early."""
    most_calm_s: float = 120.0
    most_switches_per_hour: int = 60
    deadline_ms: float | None = None
    """Lateness counts against this where an inference has no deadline of its own."""
    late: float = 0.9
    comfortable: float = 0.7
    hot_c: float | None = None
    cool_c: float | None = None
    battery_low: float = 0.2
    battery_fine: float = 0.3
    memory_low_mib: float = 64.0
    memory_fine_mib: float = 96.0
    busy: float = 0.5
    """Share of the time that this process waits for a processor: from here on no higher variant is tried.

    At a half it waits as long as it runs. Below that lateness decides: on a machine with other work a process waits at
    each wake-up, however short its items are.
    """
    most_memory_mib: float | None = None
    """All sessions together may take so much; None takes what joins."""

    def __post_init__(self) -> None:
        """Raise ValueError where the numbers contradict one another."""
        numbers = [value for value in msgspec.structs.astuple(self) if value is not None]
        if not all(math.isfinite(each) for each in numbers):
            raise ValueError("every number must be finite")
        if (self.hot_c is None) != (self.cool_c is None):
            raise ValueError("`hot_c` and `cool_c` are given together or not at all")
        bands = (
            ("calm_s", "most_calm_s", "", (self.calm_s, self.most_calm_s)),
            ("comfortable", "late", "1", (self.comfortable, self.late, 1.0)),
            ("battery_low", "battery_fine", "1", (self.battery_low, self.battery_fine, 1.0)),
            ("memory_low_mib", "memory_fine_mib", "", (self.memory_low_mib, self.memory_fine_mib)),
            ("cool_c", "hot_c", "", (self.cool_c or 0.0, self.hot_c or 0.0) if self.hot_c is not None else (0.0,)),
        )
        for *names, values in bands:
            if any(not low <= high for low, high in pairwise(values)):
                raise ValueError(f"{' <= '.join(each for each in names if each)} does not hold: {values}")
        if not (self.dwell_s > 0 and self.calm_s >= 0 and self.comfortable > 0 and 0 < self.busy <= 1):
            raise ValueError(
                "`dwell_s`, `comfortable` and `busy` must be above 0, `calm_s` not below, `busy` at most 1"
            )
        if self.battery_low < 0 or self.memory_low_mib < 0 or self.most_switches_per_hour < 2:
            raise ValueError("`battery_low` and `memory_low_mib` are at least 0, `most_switches_per_hour` at least 2")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise ValueError("`deadline_ms` must be above 0")


def policy_for(budget: Budget, *, memory_mib: float | None, trip_c: float | None) -> GovernorPolicy:
    """Return the defaults for a bundle's budget on a device with this memory and thermal limit (degrees Celsius).

    The deadline is the budget's p99; memory is short below what the budget gives one variant.
    """
    low = budget.peak_memory_mib or LOW_MEMORY_SHARE * (memory_mib or 0.0)
    return GovernorPolicy(
        deadline_ms=budget.latency_p99_ms,
        memory_low_mib=low,
        memory_fine_mib=1.5 * low,
        hot_c=None if trip_c is None else trip_c - BELOW_TRIP_C,
        cool_c=None if trip_c is None else trip_c - WELL_BELOW_TRIP_C,
    )
