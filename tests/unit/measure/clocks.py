"""A machine whose time passes only when its sessions run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgewise.runtimes.base import Array, TensorSpec


class Machine:
    """A clock in nanoseconds, and a log of what ran on which feed."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log: list[tuple[str, int]] = []

    def clock(self) -> int:
        return self.now_ns

    def session(self, name: str, cost_ns: Callable[[int], int]) -> FakeSession:
        return FakeSession(self, name, cost_ns)


class FakeSession:
    """Takes `cost_ns(number of its run)` of the machine's time."""

    inputs = (TensorSpec("x", "float32", (1,)),)
    outputs = (TensorSpec("y", "float32", (1,)),)

    def __init__(self, machine: Machine, name: str, cost_ns: Callable[[int], int]) -> None:
        self._machine, self._name, self._cost_ns = machine, name, cost_ns
        self.runs = 0

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        self._machine.log.append((self._name, int(feeds["x"][0])))
        self._machine.now_ns += self._cost_ns(self.runs)
        self.runs += 1
        return (np.zeros(1, np.float32),)


FEEDS = [{"x": np.array([index], np.float32)} for index in range(3)]
