"""One poll: ask both repositories, install what they agree on, let it answer. Nothing here waits or repeats."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgewise.device.agent.counts import Counts
from edgewise.device.agent.serving import Declared, Model, Serving
from edgewise.device.agent.settings import Settings
from edgewise.device.agent.status import LastPoll, Problem
from edgewise.device.audit.log import AuditLog
from edgewise.device.slots import Slot, Slots
from edgewise.device.trial import Limits, try_bundle
from edgewise.device.trust.director import Assignment
from edgewise.device.update import Updater
from edgewise.errors import (
    DigestError,
    EdgewiseError,
    HttpStatusError,
    SlotError,
    SlowRetrievalError,
    TransferError,
)

log = logging.getLogger("edgewise.agent")


class Polled:
    """How a poll ended."""

    def __init__(self, last: LastPoll, *, retry_after_s: float | None = None, failed: bool = False) -> None:
        """Take what is shown, and what the schedule needs."""
        self.last = last
        self.retry_after_s = retry_after_s
        self.failed = failed


class Installer:
    """Tries a filled slot: in a process of its own first, then opened here, so that what is confirmed can answer."""

    def __init__(self, slots: Slots, settings: Settings) -> None:
        """Take the limits of the trial, and what is declared beside a model."""
        self._slots = slots
        self._fallback, self._governor, self._worker = settings.fallback, settings.governor, settings.worker
        self.is_for_shadow = False
        """What is opened answers nobody: it asks no cloud, and leaves nothing in the log of fallbacks."""
        self.shadow_share = settings.shadow_share
        self._limits = Limits(memory_mib=settings.trial.memory_mib, timeout_s=settings.trial.timeout_s)
        self.opened: Model | None = None
        self.audit: AuditLog | None = None
        """What models note their fallbacks in."""

    def __call__(self, slot: Slot) -> None:
        """Raise where the slot must not be confirmed."""
        self.opened = None
        try_bundle(self._slots.path(slot), self._limits)
        self.opened = self.open(slot)

    def open(self, slot: Slot) -> Model:
        """Open a slot, which was checked. Raises as `Model.open`."""
        declared = Declared(self._fallback, self._governor, self.audit, self._worker)
        if self.is_for_shadow:
            declared = Declared(worker=self._worker)
        return Model.open(slot, self._slots.path(slot), declared)


def poll(
    updater: Updater, installer: Installer, serving: Serving, counts: Counts, *, unix_s: Callable[[], float]
) -> Polled:
    """Poll once. What answers is another model afterwards, or the same as before; every error is told in the result."""
    release = None
    try:
        found = updater.ask()
        release = found.serving.image.release
        if serving.model is None:
            _drop_damaged(updater.slots, floor=found.serving.release.floor)
        slot = updater.install(found)
        result = "up to date"
        if serving.model is None or serving.model.slot != slot:
            serving.beside(None, share=installer.shadow_share)
            serving.swap(installer.opened or installer.open(slot))
            log.info("updated", extra={"version": slot.release.version, "slot": slot.place.value})
            result = "updated"
        release = None if found.shadow is None else found.shadow.image.release
        installer.is_for_shadow, installer.opened = True, None
        _shadow(updater, installer, serving, counts, found)
        return Polled(LastPoll(at_unix_s=int(unix_s()), result=result))
    except TransferError as error:
        log.warning("unreachable", extra={"reason": error.found})
        if isinstance(error, SlowRetrievalError):  # an attack as much as a bad line
            counts.refused(error)
        problem = Problem.of(error, int(unix_s()))
        after = error.retry_after_s if isinstance(error, HttpStatusError) else None
        return Polled(
            LastPoll(at_unix_s=problem.at_unix_s, result="unreachable", problem=problem),
            retry_after_s=after,
            failed=True,
        )
    except EdgewiseError as error:
        counts.refused(error, None if release is None else release.digest)
        if release is not None:
            counts.not_installed(release.digest, error)
        problem = Problem.of(error, int(unix_s()))
        log.warning("refused", extra={"kind": problem.kind, "reason": problem.found})
        return Polled(LastPoll(at_unix_s=problem.at_unix_s, result="refused", problem=problem))
    finally:
        installer.is_for_shadow, installer.opened = False, None


def _shadow(updater: Updater, installer: Installer, serving: Serving, counts: Counts, found: Assignment) -> None:
    """Score with what was assigned beside what serves, or no longer. Raises as `Updater.install_shadow`."""
    if found.shadow is None or (serving.shadow and serving.shadow.sha256 != found.shadow.image.sha256):
        serving.beside(None, share=installer.shadow_share)
    slot = updater.install_shadow(found)
    if slot is None or serving.shadow == slot:
        return
    if installer.opened is None or installer.opened.slot != slot:
        try:
            updater.slots.check(slot, floor=found.serving.release.floor)
        except (SlotError, DigestError):
            updater.slots.keep_shadow(None)  # the next poll fetches it again
            raise
        installer.opened = installer.open(slot)
    serving.beside(installer.opened, share=installer.shadow_share)
    log.info("scoring beside", extra={"version": slot.release.version})
    counts.installed(slot.release.digest, installer.opened.runtime.variant)


def _drop_damaged(slots: Slots, *, floor: str) -> None:
    """Forget a confirmed slot that cannot be started, so that it is installed anew."""
    running = slots.state().running
    if running is not None:
        try:
            slots.check(running, floor=floor)
        except (SlotError, DigestError):
            slots.drop()
