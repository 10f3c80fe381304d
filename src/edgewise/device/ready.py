"""A variant that is loaded, checked and ready to answer, with all that is swapped together with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from edgewise.device.session import BoundSession

if TYPE_CHECKING:
    from edgewise.contracts.manifest import Manifest
    from edgewise.device.confidence import Believer


class Ready(NamedTuple):
    """What one variant brings along.

    `identity` is what makes equal inputs give equal outputs: the digests of bundle, variant and preprocessing; for a
    model file it is of this opening only. `believer` and `manifest` are None for a model file, `believer` also where
    the variant's calibration says nothing about confidence.
    """

    session: BoundSession
    variant: str
    bundle: str | None
    """SHA-256 of the bundle's manifest, in hex."""
    identity: bytes
    manifest: Manifest | None = None
    believer: Believer | None = None
    stored: bool | None = None
    """Of a classifier in a bundle: whether its scores are probabilities already; None for other tasks."""


def of_session(session: BoundSession, *, variant: str) -> Ready:
    """Return a model without a bundle, ready."""
    return Ready(session, variant=variant, bundle=None, identity=os.urandom(16))
