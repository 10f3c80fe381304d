"""The new model scores beside the old one that serves: a share of the answered inputs, in a thread of its own.

What the new one answers goes nowhere; only how often its top answer is another one is counted. It computes for at most
`share` of the time, so that what scoring costs, in energy and in delay of the answers, has a limit. Inputs that come
while it computes or rests are left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgewise.contracts.task import TaskKind
from edgewise.contracts.telemetry import SHADOW_COMPARED, SHADOW_DISAGREED
from edgewise.device.runtime import Runtime
from edgewise.device.slots import Slot
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime

Arrays = Mapping[str, Array]

log = logging.getLogger("edgewise.agent")


class Shadow:
    """Scores with one runtime until it is closed."""

    def __init__(
        self,
        slot: Slot,
        runtime: Runtime | AdaptiveRuntime,
        count: Callable[[str, int], None],
        *,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin. `count` takes the name of a counter and by how much it grows; `share` is in (0, 1]."""
        self.slot = slot
        # Nobody is given what it answers: nothing is to be logged, kept or asked of a cloud server.
        self._opened, self._runtime = runtime, Runtime(runtime.ready)
        self._count, self._share, self._clock = count, share, clock
        manifest = runtime.ready.manifest
        self._is_classifier = manifest is not None and manifest.postprocessing.kind == TaskKind.CLASSIFICATION
        self._ready = threading.Event()
        self._work: tuple[Arrays, Arrays] | None = None
        self._rests_until_s = clock()
        self._closed = False
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def offer(self, inputs: Arrays, outputs: Arrays) -> None:
        """Score these inputs too, unless it computes or rests. The arrays may be overwritten afterwards."""
        if not self._is_classifier or self._work is not None or self._clock() < self._rests_until_s:
            return
        self._work = tuple({name: array.copy() for name, array in each.items()} for each in (inputs, outputs))  # type: ignore[assignment]  # two of them
        self._ready.set()

    def close(self) -> None:
        """End the thread after what it computes."""
        self._closed = True
        self._ready.set()

    def _run(self) -> None:
        while True:
            self._ready.wait()
            self._ready.clear()
            if self._closed:
                self._runtime.close()
                self._opened.close()
                return
            if self._work is not None:
                begin = self._clock()
                self._score(*self._work)
                taken = self._clock() - begin
                self._rests_until_s = begin + taken / self._share
                self._work = None

    def _score(self, inputs: Arrays, outputs: Arrays) -> None:
        found = self._runtime.infer(inputs).outputs
        if not found:  # it fails where the old one answered
            self._count(SHADOW_DISAGREED, 1)
        else:
            self._count(SHADOW_DISAGREED, int(disagree(outputs, found)))
        self._count(SHADOW_COMPARED, 1)


def disagree(one: Arrays, other: Arrays) -> bool:
    """Return whether the top classes of two classifiers' first outputs differ, in any row. Shapes: [..., classes]."""
    first, second = next(iter(one.values())), next(iter(other.values()))
    if first.shape != second.shape:
        return True
    return not np.array_equal(np.argmax(first, axis=-1), np.argmax(second, axis=-1))
