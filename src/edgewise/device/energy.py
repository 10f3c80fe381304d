"""Energy per inference on this device: what its meter tells over a window, shared among the window's inferences.

What is metered is the whole board, package or battery, idle time and neighbours included: what an inference costs the
one who pays for the power. On a device that is always busy it is the figure that the forge measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.histogram import FINEST_SCALE, Histogram, assembled, bucket_index, merge, nanos_of
from edgewise.meters.energy import EnergyMeter

WINDOW_S = 10.0
_MJ_PER_J = 1000.0

Seconds = Callable[[], float]


def counter(provenance: EnergyProvenance) -> str:
    """Return the name of the counter of inferences whose energy has this provenance.

    >>> counter(EnergyProvenance.UNAVAILABLE)
    'energy.unavailable'
    """
    return f"energy.{provenance}"


class EnergyWindows:
    """Energy of inferences since the last `drain`; for the thread that infers."""

    def __init__(self, meters: Sequence[EnergyMeter], *, clock: Seconds = time.monotonic) -> None:
        """Read the most trusted meter, the first; none where there is none. `clock` is monotonic, in seconds."""
        self._meter = meters[0] if meters else None
        self._clock = clock
        self._histogram = Histogram()
        self._counters: dict[str, int] = {}
        self._inferences = 0
        self._begun_s = clock()
        if self._meter is not None:
            self._meter.start()

    @property
    def provenance(self) -> EnergyProvenance:
        """Where the figures come from."""
        return EnergyProvenance.UNAVAILABLE if self._meter is None else self._meter.provenance

    def count(self) -> None:
        """Count one inference."""
        self._inferences += 1

    def look(self) -> None:
        """Read the meter where the window is over; to be called now and then, between inferences."""
        if self._clock() - self._begun_s >= WINDOW_S:
            self._end()

    def drain(self) -> tuple[Histogram, dict[str, int]]:
        """Return the histogram (mJ per inference) and the counters since the last call, and begin anew.

        A window that the meter cannot tell of yet goes on; its inferences are in a later report.
        """
        self._end()
        return self._taken()

    def close(self) -> tuple[Histogram, dict[str, int]]:
        """Return what is left, a window that the meter cannot tell of as unavailable; another variant is next."""
        self._end(is_last=True)
        return self._taken()

    def _taken(self) -> tuple[Histogram, dict[str, int]]:
        found = self._histogram, self._counters
        self._histogram, self._counters = Histogram(), {}
        return found

    def _end(self, *, is_last: bool = False) -> None:
        joules = None if self._meter is None else self._meter.stop()
        if joules is not None and joules <= 0:  # not knowing, rather than no energy
            joules = None
        count, now = self._inferences, self._clock()
        can_wait = not is_last and self._meter is not None and now - self._begun_s < self._meter.settles_s
        if joules is None and can_wait:
            return
        self._inferences, self._begun_s = 0, now
        if self._meter is not None:
            self._meter.start()
        if not count:
            return
        provenance = EnergyProvenance.UNAVAILABLE if joules is None else self.provenance
        name = counter(provenance)
        self._counters[name] = self._counters.get(name, 0) + count
        if joules is not None:
            self._histogram = merge(self._histogram, _repeated(joules * _MJ_PER_J / count, count))


def _repeated(value: float, count: int) -> Histogram:
    """Return the histogram of one positive value, `count` times."""
    return assembled(
        FINEST_SCALE,
        {bucket_index(value, FINEST_SCALE): count},
        {},
        zero_count=0,
        zero_threshold=0.0,
        nanos=nanos_of(value) * count,
        extremes=(value, value),
    )
