"""A runtime that goes to a faster variant while the device is pressed, and comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from edgewise.contracts.budget import Budget
from edgewise.contracts.histogram import Histogram, merge
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.contracts.telemetry import ENERGY_MJ, LATENCY_MS, Sketch
from edgewise.device.drift.policy import DriftPolicy
from edgewise.device.drift.watch import ALARMS, NOT_FINITE, DriftWatch
from edgewise.device.energy import EnergyWindows
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.fallback.question import Original
from edgewise.device.governor.decide import Cause
from edgewise.device.governor.governor import Governor
from edgewise.device.governor.joining import Declined, Joined, energy_mj, join, times_ms
from edgewise.device.governor.lateness import MOST
from edgewise.device.governor.policy import GovernorPolicy, policy_for
from edgewise.device.governor.sensors import SYS, Sensed, Sensors, memory_mib, trip_c
from edgewise.device.meter import LatencyMeter
from edgewise.device.ready import Ready
from edgewise.device.runtime import CUT, LATE, NO_TIME, Answer, Runtime
from edgewise.device.session import BoundSession
from edgewise.device.tally import Tally
from edgewise.errors import EdgewiseError
from edgewise.meters.energy import EnergyMeter, find_meters
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.audit.log import AuditLog

KEPT_SWITCHES = 256
SWITCHES = "governor.switches"
"""Counter: all of them; `governor.switch.CAUSE` counts them by their cause."""
_LOCAL = frozenset({OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED})
_MISSES = frozenset({LATE, CUT, NO_TIME})


class Switch(NamedTuple):
    """One switch: at seconds of the clock, between which variants, why, and how long it held up the next item."""

    at_s: float
    before: str
    after: str
    cause: Cause
    reason: str
    took_us: float


class Counted(NamedTuple):
    """What one variant did; swapped with it, since an envelope of telemetry is about one variant."""

    latency: LatencyMeter
    tally: Tally
    drift: DriftWatch


class Report(NamedTuple):
    """What one variant did since the last report: the parts of an envelope of telemetry."""

    histograms: dict[str, Histogram]
    counters: dict[str, int]
    outcomes: dict[OutcomeKind, int]
    sketches: dict[str, Sketch]


Opener = Callable[[str | None], tuple[Ready, float | None]]
"""Opens a variant by its name, the chosen one for None; with the memory that this took, in MiB, where that is known."""


class AdaptiveRuntime:
    """Answers with the wanted variant, or with a lower one that joined; one thread at a time may use it.

    It switches between two items only, and all that belongs to a variant goes with it. The sessions of all that
    joined stay loaded: a switch loads nothing, and costs no more than the memory that `joined` says.
    """

    def __init__(  # noqa: PLR0913 - the parts of a runtime, by name
        self,
        members: Sequence[Ready],
        joined: Joined,
        *,
        policy: GovernorPolicy,
        sensors: Sensors | None = None,
        meters: Sequence[EnergyMeter] = (),
        drift: DriftPolicy | None = None,
        fallback: FallbackOptions | None = None,
        audit: AuditLog | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Answer with `joined.levels[0]`; see `open`. `clock` is monotonic.

        Raises ConfigError where the fallback does not fit each of them.
        """
        by_name = {each.variant: each for each in members}
        self.members = tuple(by_name[level.variant] for level in joined.levels)
        """What can answer, in the order of the levels."""
        self.joined = joined
        self.policy = policy
        self.switches: deque[Switch] = deque(maxlen=KEPT_SWITCHES)
        """The last ones, oldest first."""
        self.reason = ""
        """Why the variant that answers does; empty while it is the wanted one."""
        self._sensors = sensors
        self._clock = clock
        self._governor = Governor(policy, joined.levels)
        self._runtime = Runtime(self.members[0], fallback=fallback, audit=audit, clock=clock)
        for each in (*self.members[1:], self.members[0]):
            self._runtime.use(each)  # a fallback that does not fit is found now, not under pressure
        first = self._runtime.latency, self._runtime.tally  # a cloud server's calls are counted there
        self._counted = {
            each.variant: Counted(
                *(first if each is self.members[0] else (LatencyMeter(), Tally())), DriftWatch(each, policy=drift)
            )
            for each in self.members
        }
        self._now = self._counted[self.members[0].variant]
        self.energy = EnergyWindows(meters)
        """Of whatever variant answers; read into its report when another one takes over."""
        self._energies = {each.variant: (Histogram(), dict[str, int]()) for each in self.members}
        if sensors is not None:
            sensors.start()

    @classmethod
    def open(  # noqa: PLR0913 - as above
        cls,
        folder: Path,
        *,
        wanted: str | None = None,
        policy: GovernorPolicy | None = None,
        state: Sequence[tuple[str, str]] = (),
        drift: DriftPolicy | None = None,
        fallback: FallbackOptions | None = None,
        audit: AuditLog | None = None,
        sensors: Sensors | None = None,
        sys: Path = SYS,
        opener: Opener | None = None,
    ) -> Self:
        """Open the variants of an extracted bundle's folder, whose files were verified, and measure who joins.

        The chosen variant is the wanted one, unless another is named. One that cannot be opened, or is wrong on a
        golden input, does not join, and `joined.declined` says why; where it is the wanted one, that is raised:
        BundleError, ModelError, ExecutionError. Raises ConfigError where a fallback does not fit. `sys` is where sysfs
        is mounted: meters and sensors are looked for there. `opener` opens variants elsewhere than in this process.
        """
        opened = opener or _in_this_process(folder, state)
        first, size = opened(wanted)
        members, declined, sizes = [first], list[Declined](), {first.variant: size}
        manifest = first.manifest
        for each in () if manifest is None else manifest.variants:
            if each.name == first.variant:
                continue
            try:
                ready, sizes[each.name] = opened(each.name)
                members.append(ready)
            except EdgewiseError as error:
                declined.append(Declined(each.name, error.found))
        budget = manifest.budget if manifest is not None else Budget()
        policy = policy or policy_for(budget, memory_mib=memory_mib(), trip_c=trip_c(sys))
        meters = find_meters(sys=sys)
        found = join(
            members,
            times_ms(members),
            energies={each.variant: energy_mj(each, meters) for each in members},
            memory=sizes,
            most_memory_mib=policy.most_memory_mib,
        )
        joined = Joined(found.levels, (*declined, *found.declined))
        sensors = sensors or Sensors(sys)
        return cls(
            members,
            joined,
            policy=policy,
            sensors=sensors,
            meters=meters,
            drift=drift,
            fallback=fallback,
            audit=audit,
        )

    @property
    def ready(self) -> Ready:
        """What answers now."""
        return self._runtime.ready

    @property
    def session(self) -> BoundSession:
        """That of what answers now."""
        return self._runtime.session

    @property
    def variant(self) -> str:
        """The name of what answers now."""
        return self._runtime.variant

    @property
    def bundle(self) -> str | None:
        """The digest of the bundle's manifest; None for model files."""
        return self._runtime.bundle

    @property
    def drift(self) -> DriftWatch:
        """That of what answers now, with its alarms."""
        return self._now.drift

    @property
    def sensed(self) -> Sensed:
        """What the device said of itself last, and what it does not say."""
        return Sensed(missing=("no sensors were given",)) if self._sensors is None else self._sensors.latest

    def infer(
        self, inputs: Mapping[str, Array], *, deadline_ms: float | None = None, original: Original | None = None
    ) -> Answer:
        """Answer once, as `Runtime.infer` does; then look whether another variant should answer the next item."""
        latency = self._now.latency
        latency.latest_ms = None
        answer = self._runtime.infer(inputs, deadline_ms=deadline_ms, original=original)
        due_ms = self.policy.deadline_ms if deadline_ms is None else deadline_ms
        if due_ms is not None:
            self._note(answer.outcome, latency.latest_ms, due_ms)
        if latency.latest_ms is not None:
            self.energy.count()
            if answer.outcome.kind in _LOCAL:
                self._now.drift.record(inputs, answer.outputs)
        now_s = self._clock() / 1e9
        if self._governor.is_due(now_s):
            self._look(now_s)
            self.energy.look()
        return answer

    def report(self) -> dict[str, Report]:
        """Return what each variant did since the last call, and begin anew."""
        self._read_energy(is_last=False)
        return {name: self._report(name, counted) for name, counted in self._counted.items()}

    def close(self) -> None:
        """End the threads, and the processes of variants that have one."""
        self._runtime.close()
        self.energy.close()
        for each in self.members:
            each.session.close()
        if self._sensors is not None:
            self._sensors.close()

    def _note(self, outcome: Outcome, taken_ms: float | None, due_ms: float) -> None:
        """Note how late the local model was; what came to no execution for another reason says nothing."""
        if taken_ms is not None:
            share = taken_ms / due_ms
        elif outcome.reason in _MISSES or (outcome.slack_ms or 0.0) < 0:  # a worker that was ended is late too
            share = 1.0 if due_ms > 0 else MOST
        else:
            return
        self._governor.note(share)

    def _report(self, name: str, counted: Counted) -> Report:
        alarms = counted.drift.reported
        sketches = counted.drift.drain()
        outcomes, counters = counted.tally.drain()
        found = {ALARMS: len(counted.drift.alarms) - alarms, NOT_FINITE: counted.drift.take_not_finite()}
        energy, energies = self._energies.pop(name, (Histogram(), {}))
        histograms = {LATENCY_MS: counted.latency.drain(), ENERGY_MJ: energy}
        return Report(
            {key: each for key, each in histograms.items() if each.count},
            counters | energies | {key: count for key, count in found.items() if count},
            outcomes,
            {key: each for key, each in sketches.items() if any(each.counts)},
        )

    def _read_energy(self, *, is_last: bool) -> None:
        """Add what the meter says to the variant that answers."""
        histogram, counters = self.energy.close() if is_last else self.energy.drain()
        before, counted = self._energies.get(self.variant, (Histogram(), {}))
        total = {name: counted.get(name, 0) + counters.get(name, 0) for name in counted | counters}
        self._energies[self.variant] = merge(before, histogram), total

    def _look(self, now_s: float) -> None:
        old, decision = self.members[self._governor.level], self._governor.look(now_s, self.sensed)
        level = self._governor.level
        if decision.cause is None:
            if level == 0:
                self.reason = ""
            return
        begin = time.perf_counter_ns()
        new = self.members[level]
        new.session.take_state(old.session)
        self._read_energy(is_last=True)
        self.reason = decision.reason if level else ""
        self._runtime.use(new, degraded=self.reason)
        self._now = self._counted[new.variant]
        self._runtime.latency, self._runtime.tally = self._now.latency, self._now.tally
        self._runtime.tally.event(SWITCHES)
        self._runtime.tally.event(f"governor.switch.{decision.cause}")
        took_us = (time.perf_counter_ns() - begin) / 1e3
        self.switches.append(Switch(now_s, old.variant, new.variant, decision.cause, decision.reason, took_us))


def _in_this_process(folder: Path, state: Sequence[tuple[str, str]]) -> Opener:
    from edgewise.device.bundled import open_variant  # noqa: PLC0415 - as in Runtime.open

    def opened(name: str | None) -> tuple[Ready, float | None]:
        before = resident_mib()
        ready = open_variant(folder, name, state=state)
        after = resident_mib()
        return ready, max(after - before, 0.0) if before is not None and after is not None else None

    return opened


def resident_mib(pid: int | None = None) -> float | None:
    """Return what a process, this one by default, holds in memory; None where that cannot be read."""
    import psutil  # noqa: PLC0415 - a device that does not govern does not load it

    try:
        return float(psutil.Process(pid).memory_info().rss) / (1 << 20)
    except (OSError, psutil.Error):
        return None
