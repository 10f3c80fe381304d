"""What this device should run: the director says it, the image repository must agree.

Both are refreshed, each along its own chain of roots (Uptane, full verification). The director's answer
counts only where the image repository, whose keys are offline, holds the same file with the same digest,
release and version, and the version is not below the security floor that is signed there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgewise.contracts.manifest import version_numbers
from edgewise.contracts.policy import Image, Policy, choose, decode_policy, policy_target
from edgewise.contracts.signed import SignedRelease, release_in
from edgewise.device.trust.client import RepositoryClient, SignedTarget
from edgewise.device.trust.writing import write_whole
from edgewise.errors import DisagreementError, EdgewiseError, MetadataError, RollbackError, UnknownTargetError

NO_FLOOR = "0.0.0"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that both repositories agree on."""

    image: Image
    target: SignedTarget
    release: SignedRelease


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What both repositories agree on for this device: what it serves with, and what it scores beside it."""

    serving: Offer
    shadow: Offer | None
    policy: Policy


def assignment(
    director: RepositoryClient,
    images: RepositoryClient,
    *,
    product: str,
    device: str,
    labels: frozenset[str],
    folder: Path,
) -> Assignment:
    """Refresh both and return what to run. `folder` keeps the policy and the security floor of the product.

    Raises DisagreementError, RollbackError below the floor, UnknownTargetError where the director says
    nothing of the product, else as `RepositoryClient.refresh`.
    """
    director.refresh()
    policy = _policy(director, product, folder)
    image = choose(policy, device, labels)
    images.refresh()
    if policy.shadow and image == policy.offered:
        serving, shadow = _offer(images, policy.current, folder), _offer(images, image, folder)
        return Assignment(serving=serving, shadow=shadow, policy=policy)
    return Assignment(serving=_offer(images, image, folder), shadow=None, policy=policy)


def remembered(
    director: RepositoryClient, *, product: str, device: str, labels: frozenset[str], folder: Path
) -> Image | None:
    """Return what the director assigned last, from the disk alone; None where that cannot be told any more."""
    path = folder / f"{product}.policy"
    with contextlib.suppress(EdgewiseError, OSError, msgspec.DecodeError):
        director.recall()
        if director.find(policy_target(product)).is_at(path):
            policy = decode_policy(path.read_bytes())
            return policy.current if policy.shadow else choose(policy, device, labels)
    return None


def _offer(images: RepositoryClient, image: Image, folder: Path) -> Offer:
    """Check an image against the image repository and the security floor, which it may raise."""
    target = _agreed(images, image)
    release = _release(target, image)
    product = release.product
    floor = max(release.floor, known_floor(folder, product), key=version_numbers)
    if floor != known_floor(folder, product):
        write_whole(folder / f"{product}.floor", floor.encode())
    if not release.allowed_above(floor):
        raise RollbackError(
            f"{product} {release.version} is offered",
            required=f"a version at or above the signed security floor {floor}",
            next_step="report it: nobody should offer it; the device goes on with what it has",
        )
    return Offer(image=image, target=target, release=release)


def known_floor(folder: Path, product: str) -> str:
    """Return the highest security floor of a product that this device has seen signed."""
    with contextlib.suppress(OSError, ValueError):
        found = (folder / f"{product}.floor").read_text("ascii")
        version_numbers(found)
        return found
    return NO_FLOOR


def _policy(director: RepositoryClient, product: str, folder: Path) -> Policy:
    path = folder / f"{product}.policy"
    director.download(director.find(policy_target(product)), path)
    try:
        policy = decode_policy(path.read_bytes())
    except msgspec.DecodeError as error:
        raise MetadataError(
            f"the policy of {product}: {error}",
            required="a policy as this version reads it",
            next_step="update the device's edgewise, or publish a policy of an older format",
        ) from error
    if policy.product != product:
        raise DisagreementError(
            f"the policy of {product} is about {policy.product}",
            required="a policy of the product",
            next_step="report it",
        )
    return policy


def _agreed(images: RepositoryClient, image: Image) -> SignedTarget:
    """Return what the image repository signed under the name that the director gave."""
    try:
        target = images.find(image.target)
    except UnknownTargetError as error:
        raise _disagree(image, "nothing of this name") from error
    if target.length != image.length or target.digests.get("sha256") != image.sha256:
        raise _disagree(image, f"{target.length} bytes with SHA-256 {target.digests.get('sha256')}")
    return target


def _release(target: SignedTarget, image: Image) -> SignedRelease:
    try:
        release = release_in(target.custom)
    except msgspec.ValidationError as error:
        raise MetadataError(
            f"{target.name}: {error}",
            required="a bundle with its release and security floor",
            next_step="report it",
        ) from error
    if (release.product, release.version, release.digest) != (
        image.release.product,
        image.release.version,
        image.release.digest,
    ):
        raise _disagree(image, f"{release.product} {release.version} with manifest {release.digest}")
    return release


def _disagree(image: Image, found: str) -> DisagreementError:
    return DisagreementError(
        f"the director asks for {image.target} ({image.length} bytes, SHA-256 {image.sha256}); "
        f"the image repository has {found}",
        required="a bundle that was signed offline",
        next_step="report it: the server may be compromised; the device goes on with what it has",
    )
