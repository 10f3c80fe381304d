"""Counts latencies without slowing what it meters: they are kept as they come, and binned in batches."""

from __future__ import annotations

from array import array

from edgewise.contracts.histogram import Histogram, histogram_of, merge

_BATCH = 1024


class LatencyMeter:
    """Latencies in milliseconds since the last `drain`."""

    def __init__(self) -> None:
        """Start empty."""
        self._batch = array("d", bytes(8 * _BATCH))
        self._used = 0
        self._binned = Histogram()
        self.latest_ms: float | None = None
        """What was recorded last."""

    def record(self, latency_ms: float) -> None:
        """Count one; every 1024th takes a few milliseconds for binning. Needs a finite value of at least 0."""
        self._batch[self._used] = self.latest_ms = latency_ms
        self._used += 1
        if self._used == _BATCH:
            self._bin()

    def drain(self) -> Histogram:
        """Return what was counted since the last call, and begin anew: a delta."""
        self._bin()
        binned, self._binned = self._binned, Histogram()
        return binned

    def _bin(self) -> None:
        values, self._used = self._batch[: self._used], 0
        self._binned = merge(self._binned, histogram_of(values))
