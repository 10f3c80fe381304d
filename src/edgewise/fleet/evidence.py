"""What devices reported, as the gates need it: one row per device.

Envelopes of a device become two windows, before the rollout and since its stage began; windows become the logarithm of
what each metric changed by, and counts of events. Everything here is adding up: the judgement is in `fleet.gates`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.histogram import Histogram, merge, quantile
from edgewise.contracts.rollout import GatePolicy, MetricGate, RateGate, Statistic
from edgewise.contracts.telemetry import REQUESTS, Envelope, Key

LEAST_COUNT = {Statistic.P50: 10, Statistic.P95: 20, Statistic.P99: 100, Statistic.MEAN: 10}
"""Fewer values say nothing about the statistic: a device that had less to do is idle, not missing."""

CRASHES = "crashes"
"""The envelope's own count, under the name that rate gates know it by."""

BoolArray = NDArray[np.bool_]
DoubleArray = NDArray[np.float64]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device reported of one release in a stretch of time, added up."""

    histograms: Mapping[str, Histogram] = MappingProxyType({})
    counters: Mapping[str, int] = MappingProxyType({})
    crash_loop: bool = False
    signature_failures: int = 0


class DeviceEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a rollout. Times are the server's, in seconds.

    `canary` tells the cohort from the controls; `since_s` is when the device was assigned, a late joiner's own time.
    `not_installed` are the kinds of error that kept the release it is assigned from ever being installed.
    """

    device: str
    device_class: str
    canary: bool
    since_s: float
    last_report_s: float | None = None
    """Of the release it is assigned, since `since_s`."""
    baseline: Window | None = None
    current: Window | None = None
    not_installed: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Devices [n] as columns; the columns of gates are by the gate's name.

    `changes` are in log units, nan where there is nothing to compare; `missing` is true where a device that reported
    and worked owes a figure and did not give it. `refusals` counts canaries by what kept the release from them.
    """

    classes: tuple[str, ...]
    of: NDArray[np.int64]
    canary: BoolArray
    reported: BoolArray
    silent: BoolArray
    crash_loop: BoolArray
    not_installed: BoolArray
    refusals: Mapping[str, int]
    refused_signature: BoolArray
    changes: Mapping[str, DoubleArray]
    missing: Mapping[str, BoolArray]
    events: Mapping[str, DoubleArray]
    trials: Mapping[str, DoubleArray]


def window_of(envelopes: Iterable[Envelope]) -> Window:
    """Return the sum of envelopes of one device; one that comes twice counts once."""
    unique: dict[Key, Envelope] = {each.key: each for each in envelopes}
    histograms: dict[str, Histogram] = {}
    counters: dict[str, int] = {CRASHES: 0}
    for each in unique.values():
        for name, histogram in each.histograms.items():
            histograms[name] = merge(histograms[name], histogram) if name in histograms else histogram
        for name, count in (*each.counters.items(), (CRASHES, each.crashes)):
            counters[name] = counters.get(name, 0) + count
    return Window(
        histograms=histograms,
        counters=counters,
        crash_loop=any(each.crash_loop for each in unique.values()),
        signature_failures=sum(each.signature_failures for each in unique.values()),
    )


def table(policy: GatePolicy, devices: Sequence[DeviceEvidence], *, now_s: float) -> Table:
    """Return the devices as columns, at the server's time `now_s`."""
    classes = tuple(sorted({each.device_class for each in devices}))
    number = {name: place for place, name in enumerate(classes)}
    figures = {gate.name: [change(gate, each) for each in devices] for gate in policy.metrics}
    counts = {gate.name: [_count(gate, each) for each in devices] for gate in policy.rates}
    # A device that could not install the release has nothing to compare, and has failed.
    reported = [
        each.last_report_s is not None and each.current is not None and not each.not_installed for each in devices
    ]
    last = [each.since_s if each.last_report_s is None else max(each.last_report_s, each.since_s) for each in devices]
    now = [each.current or Window() for each in devices]
    missing = {name: [figure is None for figure in column] for name, column in figures.items()}
    missing |= {name: [count is None for count in column] for name, column in counts.items()}
    return Table(
        classes=classes,
        of=np.array([number[each.device_class] for each in devices], dtype=np.int64),
        canary=_mask([each.canary for each in devices]),
        reported=_mask(reported),
        silent=_mask([now_s - time > policy.report_s for time in last]),
        crash_loop=_mask([each.crash_loop for each in now]),
        not_installed=_mask([bool(each.not_installed) for each in devices]),
        refusals=Counter(kind for each in devices if each.canary for kind in each.not_installed),
        refused_signature=_mask([each.signature_failures > 0 for each in now]),
        changes={name: _column([math.nan if each is None else each for each in col]) for name, col in figures.items()},
        missing={name: _mask(column) & _mask(reported) for name, column in missing.items()},
        events={name: _column([each[0] if each else 0.0 for each in col]) for name, col in counts.items()},
        trials={name: _column([each[1] if each else 0.0 for each in col]) for name, col in counts.items()},
    )


def change(gate: MetricGate, device: DeviceEvidence) -> float | None:
    """Return by how much the figure's logarithm changed; nan where nothing can be compared, None where it is owed.

    A device without a baseline, or with too few requests on either side, has nothing to compare.
    """
    if device.current is None:
        return math.nan
    after = device.current.histograms.get(gate.metric)
    if after is None or after.count < LEAST_COUNT[gate.statistic] <= device.current.counters.get(REQUESTS, 0):
        return None
    if device.baseline is None or gate.metric not in device.baseline.histograms:
        return math.nan
    return log_figure(gate.statistic, after) - log_figure(gate.statistic, device.baseline.histograms[gate.metric])


def log_figure(statistic: Statistic, histogram: Histogram) -> float:
    """Return the logarithm of a statistic; nan with fewer than `LEAST_COUNT` values, or where it is not above 0."""
    if histogram.count < LEAST_COUNT[statistic] or histogram.mean is None:
        return math.nan
    shares = {Statistic.P50: 0.5, Statistic.P95: 0.95, Statistic.P99: 0.99}
    figure = quantile(histogram, shares[statistic]).value if statistic in shares else histogram.mean
    return math.log(figure) if figure > 0 else math.nan


def _count(gate: RateGate, device: DeviceEvidence) -> tuple[float, float] | None:
    """Return events and trials since the rollout; None where a counter is owed or says more events than trials."""
    if device.current is None:
        return 0.0, 0.0
    counters = device.current.counters
    if not gate.against_controls and not device.canary:
        return 0.0, 0.0
    if gate.events not in counters or gate.trials not in counters:
        return None
    events, trials = counters[gate.events], counters[gate.trials]
    return (float(events), float(trials)) if events <= trials else None


def _mask(values: Sequence[bool]) -> BoolArray:
    return np.array(values, dtype=np.bool_)


def _column(values: Sequence[float]) -> DoubleArray:
    return np.array(values, dtype=np.float64)
