"""The new bundle scores beside the old one that serves: a share of the answered inputs, in a thread of its own.

What the new one answers goes nowhere; only how often its top answer is another one is counted. It computes for at most
`share` of the time, so that what scoring costs, in energy and in delay of the answers, has a limit. Inputs that come
while it computes or rests are left out.

Classifiers are scored, and pipelines with an output that has classes, unless a stage keeps a state: it would miss most
items.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgewise.contracts.task import TaskKind
from edgewise.contracts.telemetry import SHADOW_COMPARED, SHADOW_DISAGREED
from edgewise.device.pipeline.answering import PipelineRuntime
from edgewise.device.runtime import Runtime
from edgewise.device.slots import Slot
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.governor.adaptive import AdaptiveRuntime

Arrays = Mapping[str, Array]


class Scorer(NamedTuple):
    """How the new bundle answers, whether two answers differ (the old one's comes first), and how it is closed."""

    answer: Callable[[Arrays], Arrays]
    differ: Callable[[Arrays, Arrays], bool]
    close: Callable[[], object]


def scorer_of(
    new: Runtime | AdaptiveRuntime | PipelineRuntime, old: Runtime | AdaptiveRuntime | PipelineRuntime | None
) -> Scorer | None:
    """Return how to score with `new` beside `old`, which serves; None where top answers cannot be compared."""
    if isinstance(new, PipelineRuntime):
        if not isinstance(old, PipelineRuntime) or new.is_stateful or old.is_stateful:
            return None
        names = [name for name in old.classes if name in new.classes]
        if not names:
            return None
        return Scorer(
            lambda inputs: new.infer(inputs).outputs, lambda one, other: any_disagree(names, one, other), new.close
        )
    manifest = new.ready.manifest
    if isinstance(old, PipelineRuntime) or manifest is None or manifest.postprocessing.kind != TaskKind.CLASSIFICATION:
        return None
    # Nobody is given what it answers: nothing is to be logged, kept or asked of a cloud server.
    bare = Runtime(new.ready)

    def close() -> None:
        bare.close()
        new.close()

    return Scorer(
        lambda inputs: bare.infer(inputs).outputs, lambda one, other: not other or disagree(one, other), close
    )


class Shadow:
    """Scores until it is closed. Any thread may offer."""

    def __init__(
        self,
        slot: Slot,
        scorer: Scorer,
        count: Callable[[str, int], None],
        *,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin. `count` takes the name of a counter and by how much it grows; `share` is in (0, 1]."""
        self.slot = slot
        self._scorer = scorer
        self._count, self._share, self._clock = count, share, clock
        self._ready = threading.Event()
        self._taking = threading.Lock()
        self._work: tuple[Arrays, Arrays] | None = None
        self._rests_until_s = clock()
        self._closed = False
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def offer(self, inputs: Arrays, outputs: Arrays) -> None:
        """Score these inputs too, unless it computes or rests. The arrays may be overwritten afterwards."""
        if self._work is not None or self._clock() < self._rests_until_s:
            return
        with self._taking:
            if self._work is None:
                self._work = _copied(inputs), _copied(outputs)
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
                self._scorer.close()
                return
            if self._work is not None:
                begin = self._clock()
                self._score(*self._work)
                taken = self._clock() - begin
                self._rests_until_s = begin + taken / self._share
                self._work = None

    def _score(self, inputs: Arrays, outputs: Arrays) -> None:
        # One that fails where the old one answered has no outputs, and differs.
        self._count(SHADOW_DISAGREED, int(self._scorer.differ(outputs, self._scorer.answer(inputs))))
        self._count(SHADOW_COMPARED, 1)


def _copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def disagree(one: Arrays, other: Arrays) -> bool:
    """Return whether the top classes of two classifiers' first outputs differ, in any row. Shapes: [..., classes]."""
    first, second = next(iter(one.values())), next(iter(other.values()))
    if first.shape != second.shape:
        return True
    return not np.array_equal(np.argmax(first, axis=-1), np.argmax(second, axis=-1))


def any_disagree(names: list[str], one: Arrays, other: Arrays) -> bool:
    """Return whether the top classes of any of these outputs differ, or a gate kept only one of the two out."""
    for name in names:
        if (name in one) != (name in other):
            return True
        if name in one and disagree({name: one[name]}, {name: other[name]}):
            return True
    return False
