"""One update: ask, fetch (whole, or what differs), fill the other slot, try it, confirm it.

Whatever fails, and wherever it stops, what ran before still runs. A network failure (TransferError) is for the next
poll; a refusal (TrustError, BundleError, InstallError) is reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from edgewise.contracts.base import Value
from edgewise.device.recovery import signed_slots
from edgewise.device.slots import Slot, Slots, State
from edgewise.device.trial import try_bundle
from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.director import Assignment, Offer, assignment, remembered
from edgewise.device.trust.transport import Transport
from edgewise.device.trust.writing import write_whole
from edgewise.errors import (
    BundleError,
    DigestError,
    EndlessDataError,
    GivenUpError,
    QuotaError,
    SlotError,
    TransferError,
)

COPIES = 4
"""Of a bundle on the disk at most: two slots, each with the bundle and its files; a download takes a slot's share."""


class Source(Value, kw_only=True):
    """Whom a device asks, and as whom. `deltas_url` ends in a slash, empty where no deltas are offered."""

    product: str
    device: str
    labels: frozenset[str] = frozenset()
    deltas_url: str = ""


class Updater:
    """Updates the slots of one device."""

    def __init__(
        self,
        folder: Path,
        source: Source,
        *,
        director: RepositoryClient,
        images: RepositoryClient,
        transport: Transport,
        quota_bytes: int,
        trial: Callable[[Slot], object] | None = None,
    ) -> None:
        """Take the device's folder. `trial` tries what a slot holds, and raises where it must not count."""
        self._folder = folder
        self.source = source
        self._director = director
        self._images = images
        self._transport = transport
        self._quota_bytes = quota_bytes
        self.slots = Slots(folder)
        self._trial = trial or (lambda slot: try_bundle(self.slots.path(slot)))

    def update(self) -> Slot:
        """Bring the device to the release that it should run; return the slot, which is confirmed.

        Raises TransferError to be tried again, TrustError, BundleError, InstallError, WorkerError, ExecutionError.
        """
        return self.install(self.ask())

    def ask(self) -> Assignment:
        """Return what both repositories agree on for this device. Raises TransferError, TrustError, OutputError."""
        return assignment(
            self._director,
            self._images,
            product=self.source.product,
            device=self.source.device,
            labels=self.source.labels,
            folder=self._folder,
        )

    def signed_slots(self) -> tuple[Slot, ...]:
        """Return the slots that could run by signed metadata alone, what should run first; see `recovery`.

        Raises TrustError, TransferError, OutputError.
        """
        source = self.source
        wanted = remembered(
            self._director,
            product=source.product,
            device=source.device,
            labels=source.labels,
            folder=self._folder,
        )
        return signed_slots(
            self.slots,
            self._images,
            product=source.product,
            wanted=wanted.sha256 if wanted is not None else "",
            folder=self._folder,
        )

    def install(self, found: Assignment) -> Slot:
        """Fetch, try and confirm what the device should serve with, unless it runs already; raises as `update`."""
        state, offer = self.slots.state(), found.serving
        if state.running is not None and state.running.sha256 == offer.image.sha256:
            return state.running
        slot = self._filled(offer, state)
        self.slots.confirm(slot)
        return slot

    def install_shadow(self, found: Assignment) -> Slot | None:
        """Fetch and try what is scored beside what serves, and keep it in the other slot; None where nothing is.

        Raises as `update`. It is confirmed by a later `install`, when it is what the device should serve with.
        """
        state, offer = self.slots.state(), found.shadow
        if offer is None:
            if state.shadow is not None:
                self.slots.keep_shadow(None)
            return None
        if state.shadow is not None and state.shadow.sha256 == offer.image.sha256:
            return state.shadow
        slot = self._filled(offer, state)
        self.slots.keep_shadow(slot)
        return slot

    def _filled(self, offer: Offer, state: State) -> Slot:
        """Return a slot with the bundle, tried here."""
        if offer.image.sha256 in state.given_up:
            raise GivenUpError(
                f"{offer.release.product} {offer.release.version} crashed or hung here again and again",
                required="another release",
                next_step="roll out a corrected release; the device goes on with the one before",
            )
        slot = self._there(offer, state)
        if slot is None:
            self._check_quota(offer)
            slot = self.slots.fill(self._fetched(offer, state.running), offer.image.release, offer.image.sha256)
        self._trial(slot)
        return slot

    def _there(self, offer: Offer, state: State) -> Slot | None:
        """Return the place that does not run, where it holds what is wanted, unharmed.

        It was scored with, is the bundle before, or failed its trial: none of them is fetched again.
        """
        slot = Slot(place=self.slots.free(state), release=offer.image.release, sha256=offer.image.sha256)
        with contextlib.suppress(SlotError, DigestError):
            self.slots.check(slot, floor=offer.release.floor)
            return slot
        return None

    def _check_quota(self, found: Offer) -> None:
        needed = COPIES * found.image.length
        if needed > self._quota_bytes:
            raise QuotaError(
                f"{found.release.product} {found.release.version} has {found.image.length} bytes",
                required=f"at most {self._quota_bytes // COPIES}, a part in {COPIES} of the device's quota",
                next_step="raise the quota, or roll out a smaller bundle",
            )

    def _fetched(self, found: Offer, running: Slot | None) -> Path:
        """Return the bundle, whole and with its signed digest."""
        incoming = self._folder / "incoming"
        path = incoming / f"{found.image.sha256}.edgewise"
        with contextlib.suppress(OSError):
            for other in incoming.iterdir():  # of an update that was overtaken
                if found.image.sha256 not in other.name:
                    other.unlink()
        if running is not None and self.source.deltas_url and not found.target.is_at(path):
            # A delta is never needed: where it is not there, or damaged, the whole bundle is.
            with contextlib.suppress(TransferError, DigestError, EndlessDataError, BundleError):
                self._patched(found, running, path)
        self._images.download(found.target, path)
        return path

    def _patched(self, found: Offer, running: Slot, path: Path) -> None:
        """Make the bundle from the one that runs and what differs."""
        from edgewise.bundle.delta_apply import apply_delta  # noqa: PLC0415 - zstandard is loaded for deltas only

        url = f"{self.source.deltas_url}{running.sha256}-{found.image.sha256}.delta"
        delta = path.with_suffix(".delta")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray()
        with self._transport.get(url) as reply:
            reply.check_status()
            for chunk in reply.chunks():
                data += chunk
                if len(data) > found.image.length:
                    raise EndlessDataError(f"{url}: more bytes than the bundle itself")
        write_whole(delta, bytes(data))
        try:
            apply_delta(self.slots.bundle(running), delta, path, digest=found.image.sha256)
        finally:
            delta.unlink(missing_ok=True)
