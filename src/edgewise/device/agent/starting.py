"""The start of the agent: what was confirmed answers, or what came before it, or what signed metadata speak for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from edgewise.device.agent.counts import Counts
from edgewise.device.agent.ending import Hung
from edgewise.device.agent.polling import Installer
from edgewise.device.agent.serving import Serving
from edgewise.device.slots import MOST_STARTS, Place, Slot, Slots, State
from edgewise.device.update import Updater
from edgewise.errors import (
    ConfigError,
    EdgewiseError,
    ExecutionError,
    GivenUpError,
    HungError,
    InputError,
    InstallError,
    SlotError,
    TrustError,
    WorkerError,
)

Note = Callable[[EdgewiseError, str | None], None]

log = logging.getLogger("edgewise.agent")


class Started(NamedTuple):
    """What was wrong on the way, and why what answers is not what the state says; empty where it is."""

    problems: list[EdgewiseError]
    recovered: str


def start(
    updater: Updater,
    installer: Installer,
    serving: Serving,
    counts: Counts,
    *,
    floor: str,
    hung: Hung | None = None,
) -> Started:
    """Let the confirmed bundle answer, or the one before, or a slot that is signed and passes its trial again.

    `hung` is why the process before this one ended itself; a bundle for which that was so too often in a row is left.
    Without a bundle that can run the agent goes on, and the next poll brings one. Raises OutputError, and ConfigError
    where the declared fallback does not fit the model.
    """
    problems: list[EdgewiseError] = []
    slots = updater.slots

    def note(error: EdgewiseError, release: str | None = None) -> None:
        counts.refused(error, release)
        problems.append(error)

    _look_back(slots, hung, note, counts)
    while slots.state().running is not None:
        before = slots.state()
        try:
            slot = slots.boot(floor=floor)
        except (InstallError, TrustError) as error:
            note(error)
            break
        if before.running is not None and before.running != slot:
            note(_why_left(slots, before, before.running, floor=floor), before.running.release.digest)
            if before.starts >= MOST_STARTS:
                counts.given_up(before.running.release.digest)
        try:
            serving.swap(installer.open(slot))
        except ConfigError:
            slots.healthy()  # the settings are at fault: this start shall not count against the bundle
            raise
        except (
            InputError,
            ExecutionError,
            WorkerError,
        ) as error:  # the next start of it counts: it goes back in the end
            note(error)
        else:
            return Started(problems, "")
    return Started(problems, _recovered(updater, installer, serving, note))


def _recovered(updater: Updater, installer: Installer, serving: Serving, note: Note) -> str:
    """Let a slot answer that the state does not know; return why, or nothing where there is none."""
    slots = updater.slots
    if not any(slots.bundle_at(place).exists() for place in Place):
        return ""  # nothing was ever installed
    state = slots.state()
    judged = {each.sha256 for each in (state.running, state.previous) if each is not None} | {*state.given_up}
    try:
        candidates = updater.signed_slots()
    except EdgewiseError as error:
        log.warning("slots cannot be told from metadata", extra={"reason": error.found})
        return ""
    for slot in candidates:
        if slot.sha256 in judged:  # it was left for a reason that its signature does not heal
            continue
        try:
            installer(slot)
        except EdgewiseError as error:  # also where the settings do not fit: it was never confirmed with them
            note(error, slot.release.digest)
            continue
        if installer.opened is None:
            continue
        slots.adopt(slot)
        serving.swap(installer.opened)
        installer.opened = None
        return (
            f"{slot.release.version} in slot {slot.place} answers by its signed metadata and another trial: "
            f"the state did not say that it was confirmed"
        )
    return ""


def _look_back(slots: Slots, hung: Hung | None, note: Note, counts: Counts) -> None:
    """Put a state out of the way that cannot be read; count against a bundle that the last process ended for it."""
    try:
        slots.state()
    except SlotError as error:
        note(error, None)
        slots.set_aside()
    if hung is None:
        return
    then = "it is not scored again" if hung.shadow else f"after {MOST_STARTS} in a row the bundle before it runs"
    ended = HungError(
        f"{hung.reason}; the agent ended itself, {hung.in_a_row} in a row",
        required="a model that answers",
        next_step=f"{then}; with [worker] only the model would be ended",
    )
    note(ended, None)
    if hung.shadow:
        slots.give_up(hung.sha256)
        counts.given_up(hung.release)
    elif hung.in_a_row >= MOST_STARTS:
        slots.blame(hung.sha256)


def _why_left(slots: Slots, before: State, left: Slot, *, floor: str) -> EdgewiseError:
    """Return why the slot that ran before is not the one that was started."""
    name = f"{left.release.product} {left.release.version}"
    if before.starts >= MOST_STARTS:
        return GivenUpError(
            f"{name} crashed or hung here, {MOST_STARTS} times in a row", next_step="the bundle before it runs again"
        )
    try:
        slots.check(left, floor=floor)
    except EdgewiseError as error:
        return error
    return SlotError(f"the files of {name} could not be read at the start, and can be now", next_step="check the disk")
