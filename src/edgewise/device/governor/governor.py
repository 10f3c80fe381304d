"""What is remembered between two items, and when the rule is asked: without a clock, so that a recording replays it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewise.device.governor.decide import Decision, Level, Reading, State, decide
from edgewise.device.governor.lateness import Lateness
from edgewise.device.governor.policy import GovernorPolicy
from edgewise.device.governor.sensors import Sensed

LOOK_S = 0.1
"""How often the rule is asked while nothing is late."""


class Governor:
    """Says after each item which level should answer the next one; at first the wanted one, 0."""

    def __init__(self, policy: GovernorPolicy, levels: Sequence[Level]) -> None:
        """Take the rule's numbers, and the levels as `decide` does."""
        self.policy = policy
        self._levels = levels
        self._state = State()
        self._lateness = Lateness()
        self._due_s = -math.inf

    @property
    def level(self) -> int:
        """What should answer."""
        return self._state.level

    def note(self, share: float) -> None:
        """Note what an item needed of its deadline; the rule is asked at once where it came near it."""
        self._lateness.observe(share)
        if share > self.policy.late:
            self._due_s = -math.inf

    def is_due(self, now_s: float) -> bool:
        """Say whether the rule should be asked, at seconds of a clock that never jumps."""
        return now_s >= self._due_s

    def look(self, now_s: float, sensed: Sensed) -> Decision:
        """Ask the rule, and take what it says."""
        self._due_s = now_s + LOOK_S
        decision = decide(
            self.policy,
            self._levels,
            self._state,
            Reading(
                at_s=now_s,
                lateness=self._lateness.share,
                items=self._lateness.items,
                temperature_c=sensed.temperature_c,
                battery=sensed.battery,
                free_memory_mib=sensed.free_memory_mib,
                load=sensed.load,
            ),
        )
        self._state = decision.state
        if decision.cause is not None:
            self._lateness.reset()
        return decision
