"""What is signed of a bundle in the image repository beside its digest: the target's custom field."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgewise.contracts.manifest import version_numbers

FIELD = "edgewise"


class SignedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """The release of a target and the product's security floor.

    Unlike everywhere else unknown keys are let be: they are signed, and of a newer version (TUF, section 4).
    """

    product: str
    version: str
    digest: str
    """SHA-256 (hex) of the bundle's manifest."""
    floor: str
    """The oldest version that a device may still take; the same in all targets of a product."""

    def __post_init__(self) -> None:
        """Raise ValueError where a version is none."""
        version_numbers(self.version)
        version_numbers(self.floor)

    def allowed_above(self, floor: str) -> bool:
        """Return whether the version is at or above both floors."""
        return version_numbers(self.version) >= max(version_numbers(self.floor), version_numbers(floor))


def custom_of(release: SignedRelease) -> dict[str, object]:
    """Return a target's custom field."""
    return {FIELD: msgspec.to_builtins(release)}


def release_in(custom: Mapping[str, object]) -> SignedRelease:
    """Return the release in a target's custom field. Raises msgspec.ValidationError where there is none."""
    return msgspec.convert(custom.get(FIELD), SignedRelease)
