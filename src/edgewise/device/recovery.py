"""Which slots may run where the state on the disk does not say it: told by signed metadata, without the network.

A slot counts where the image repository, as this device trusted it last, signed its bundle, every file is as it was
sealed, and its version is not below the security floor, which can only rise. What the director assigned last comes
first. That a bundle works here was noted in the state alone, so whoever asks has to try it again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgewise.contracts.manifest import version_numbers
from edgewise.contracts.policy import image_target
from edgewise.contracts.rollout import Release
from edgewise.contracts.signed import release_in
from edgewise.device.slots import Place, Slot, Slots
from edgewise.device.trust.client import RepositoryClient
from edgewise.device.trust.director import known_floor
from edgewise.errors import DigestError, EdgewiseError, MetadataError


def signed_slots(
    slots: Slots, images: RepositoryClient, *, product: str, wanted: str, folder: Path
) -> tuple[Slot, ...]:
    """Return the slots that may be tried, the one with the SHA-256 `wanted` first, then the newest.

    `folder` keeps the security floor. Raises TrustError, TransferError where the metadata are not there any more.
    """
    images.recall()
    found = []
    for place in Place:
        with contextlib.suppress(EdgewiseError):  # nothing is there, or it is not as it was signed
            found.append(_signed(slots, place, images, product, folder))
    return tuple(
        sorted(found, key=lambda slot: (slot.sha256 == wanted, version_numbers(slot.release.version)), reverse=True)
    )


def _signed(slots: Slots, place: Place, images: RepositoryClient, product: str, folder: Path) -> Slot:
    """Return what a place holds. Raises EdgewiseError unless it is what trusted roles signed."""
    from edgewise.bundle.read import Bundle  # noqa: PLC0415 - a start with a good state needs none of it

    path = slots.bundle_at(place)
    with Bundle.open(path) as bundle:
        version = bundle.sealed.version  # says where to look; what is found there decides
    target = images.find(image_target(product, version))
    try:
        release = release_in(target.custom)
    except msgspec.ValidationError as error:
        raise MetadataError(f"{target.name}: {error}") from error
    if release.product != product or target.digests.get("sha256") is None:
        raise DigestError(f"{target.name} is signed as {release.product}")
    slot = Slot(
        place=place,
        release=Release(product=product, version=release.version, digest=release.digest),
        sha256=target.digests["sha256"],
    )
    slots.check(slot, floor=max(release.floor, known_floor(folder, product), key=version_numbers))
    return slot
