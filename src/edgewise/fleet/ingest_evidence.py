"""From what was kept of each device to what the gates judge: one window before the rollout, one since its stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import msgspec

from edgewise.contracts.rollout import EventKind, Rollout, in_cohort
from edgewise.contracts.telemetry import INSTALL_FAILED, INSTALLED
from edgewise.fleet.evidence import CRASHES, DeviceEvidence, Window
from edgewise.fleet.ingest_totals import Totals, add
from edgewise.fleet.store.devices import DeviceView
from edgewise.fleet.store.rollouts import KeptEvent
from edgewise.fleet.store.telemetry import Cell, CellKey

BASELINE_MS = 7 * 24 * 3_600_000
"""What a device did in the week before the rollout is what it is compared with."""

Kept = tuple[CellKey, Cell]


def stage_starts(events: Iterable[KeptEvent]) -> dict[str, float]:
    """Return when each stage first started, in seconds."""
    found: dict[str, float] = {}
    for each in events:
        if each.event.kind is EventKind.STAGE_STARTED:
            found.setdefault(each.event.stage, each.event.at_s)
    return found


def device_evidence(
    rollout: Rollout, devices: Sequence[DeviceView], cells: Sequence[Kept], starts: Mapping[str, float]
) -> list[DeviceEvidence]:
    """Return the evidence of each device of a rollout that has started."""
    by_device: dict[str, list[Kept]] = {}
    for kept in cells:
        by_device.setdefault(kept[0].device_id, []).append(kept)
    return [_of_device(rollout, device, by_device.get(device.id, []), starts) for device in devices]


def _of_device(
    rollout: Rollout, device: DeviceView, cells: Sequence[Kept], starts: Mapping[str, float]
) -> DeviceEvidence:
    start_s = rollout.start_s or 0.0
    start_ms, stage_ms = round(start_s * 1000), round(starts.get(rollout.current.name, start_s) * 1000)
    is_canary = in_cohort(rollout, device.id, frozenset(device.labels))
    since_s = max(_assigned_s(rollout, device, starts) if is_canary else start_s, device.enrolled_ms / 1000)
    assigned = rollout.to_release.digest if is_canary else rollout.from_release.digest
    releases = {assigned}
    if rollout.shadow:  # the old release serves, the new one scores along
        releases.add(rollout.from_release.digest)
    before = [cell for key, cell in cells if key.start_ms < start_ms and key.release == rollout.from_release.digest]
    since = [kept for kept in cells if kept[0].start_ms >= start_ms and kept[0].release in releases]
    theirs = [cell for key, cell in cells if key.start_ms >= start_ms and key.release == assigned]
    return DeviceEvidence(
        device=device.id,
        device_class=device.device_class,
        canary=is_canary,
        since_s=since_s,
        last_report_s=max((cell.reported_ms for _, cell in since), default=0) / 1000 if since else None,
        baseline=_window(before),
        current=_current(since, stage_ms),
        not_installed=_not_installed(theirs),
    )


def _assigned_s(rollout: Rollout, device: DeviceView, starts: Mapping[str, float]) -> float:
    """Return when the first stage that holds the device started."""
    labels = frozenset(device.labels)
    for number, stage in enumerate(rollout.stages[: rollout.stage + 1]):
        at = msgspec.structs.replace(rollout, stage=number, promoted=number, stage_start_s=0.0)
        if stage.name in starts and in_cohort(at, device.id, labels):
            return starts[stage.name]
    return rollout.start_s or 0.0


def _current(cells: Sequence[Kept], stage_ms: int) -> Window | None:
    """Return the window since the stage began, of canaries old and new and of controls: all of the same time.

    Devices that join a later stage have no other; a busier hour, or a hotter one, would else be the release's fault.
    What stops a rollout counts from its start.
    """
    alarms = [each for _, each in cells if each.totals.crash_loops or each.totals.signature_failures]
    found = _window([cell for key, cell in cells if key.start_ms >= stage_ms])
    if found is None and not alarms:
        return None
    return msgspec.structs.replace(
        found or Window(),
        crash_loop=any(each.totals.crash_loops for each in alarms),
        signature_failures=sum(each.totals.signature_failures for each in alarms),
    )


def _not_installed(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the kinds of error that kept a release from a device; none where it was installed in the end."""
    counters = reduce(add, (cell.totals for cell in cells), Totals()).counters
    if counters.get(INSTALLED):
        return ()
    return tuple(sorted(name.removeprefix(INSTALL_FAILED) for name in counters if name.startswith(INSTALL_FAILED)))


def _window(cells: Sequence[Cell]) -> Window | None:
    if not cells:
        return None
    whole = reduce(add, (cell.totals for cell in cells), Totals())
    return Window(
        histograms=whole.histograms,
        counters=whole.counters | {CRASHES: whole.crashes},
        crash_loop=whole.crash_loops > 0,
        signature_failures=whole.signature_failures,
    )
