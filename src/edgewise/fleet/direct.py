"""Publishes what rollouts decide: the director's signed policy of each product, which devices poll as a file.

It runs as work of the leader, after each change and from time to time to keep signatures fresh. Publishing again what
is published already signs nothing, so a leader that was killed in between is no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from obstore.store import ObjectStore
from tuf.api.metadata import Targets

from edgewise.contracts.policy import Policy, policy_of
from edgewise.contracts.rollout import Release, Rollout
from edgewise.errors import ConfigError, ConflictError, EdgewiseError, NotFoundError, RepositoryError
from edgewise.fleet.repository.director import PLACE, direct
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import Files
from edgewise.fleet.repository.image import image_of
from edgewise.fleet.repository.online import keep_fresh, online_signers

IMAGES = "repository"

log = logging.getLogger("edgewise.fleet.director")


class Director:
    """Signs with the server's own keys, under roots that were given with them."""

    def __init__(self, store: ObjectStore, keys: Path, trusted_root: Path) -> None:
        """Read keys and roots. Raises ConfigError, KeyFileError."""
        self._images = Files(store, IMAGES)
        self._policies = Files(store, f"{IMAGES}/{PLACE}")
        self._signers = online_signers(keys, passphrase=None)
        try:
            self._image_root = trusted_root.read_bytes()
            self._root = trusted_root.with_name(f"director-{trusted_root.name}").read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{error.filename}: {error.strerror}",
                required="the roots that `edgewise repo init` wrote",
                next_step="name the first with --trusted-root; the director's lies beside it",
            ) from error

    def check(self, found: Sequence[Release], now: datetime) -> None:
        """Raise ConflictError unless devices would find these releases in the image repository, as they are here."""
        images = Edition(self._images, now=now, trusted_root=self._image_root)
        for each in found:
            try:
                known = image_of(images.read(each.product, Targets), each.product, each.version).release.digest
            except (RepositoryError, NotFoundError) as error:
                raise ConflictError(
                    f"{each.product} {each.version} is not in the image repository: {error.found}",
                    required="a bundle that its owner signed for devices",
                    next_step="edgewise repo add, then start it again",
                ) from error
            if known != each.digest:
                raise ConflictError(
                    f"{each.product} {each.version} is another bundle in the image repository than here",
                    required="the same bundle in both",
                    next_step="seal it with a higher version, publish that and add it",
                )

    def publish(self, rollouts: Sequence[Rollout], now: datetime) -> bool:
        """Publish the policies of these rollouts, one a product; return whether anything changed.

        A rollout whose bundles are not in the image repository is told in the log and leaves its product as it is.
        Raises StorageError, SignatureError where somebody changed the store.
        """
        images = Edition(self._images, now=now, trusted_root=self._image_root)
        policies = []
        for each in rollouts:
            try:
                policies.append(_policy(images, each))
            except EdgewiseError as error:
                log.warning("not published", extra={"rollout": each.id, "reason": error.found})
        edition = Edition(self._policies, now=now, trusted_root=self._root)
        changed = direct(edition, self._policies, policies, self._signers)
        if not changed:
            keep_fresh(edition, self._signers, now)
        keep_fresh(images, self._signers, now)
        return changed


def _policy(images: Edition, rollout: Rollout) -> Policy:
    product = rollout.to_release.product
    role = images.read(product, Targets)
    before, after = (image_of(role, product, each.version) for each in (rollout.from_release, rollout.to_release))
    return policy_of(rollout, before=before, after=after)


def deciding(found: Sequence[Rollout]) -> list[Rollout]:
    """Return the rollout of each product that was started last: it says what devices run, also after its end."""
    last: dict[str, Rollout] = {}
    for each in found:
        product = each.to_release.product
        if each.start_s is not None and (product not in last or each.start_s > (last[product].start_s or 0)):
            last[product] = each
    return [last[product] for product in sorted(last)]
