"""The image repository: which bundles exist. Root and targets are signed offline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgewise.bundle.read import Bundle
from edgewise.contracts.base import Value
from edgewise.contracts.manifest import version_numbers
from edgewise.contracts.policy import Image, image_target
from edgewise.contracts.rollout import Release
from edgewise.contracts.signed import SignedRelease, custom_of, release_in
from edgewise.contracts.telemetry import check_identifier
from edgewise.errors import InputError, RepositoryError
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import Files

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")


class RoleKeys(msgspec.Struct, frozen=True):
    """The public keys of a role, and how many of them must sign."""

    keys: tuple[Key, ...]
    threshold: int = 1

    def check(self, role: str) -> None:
        """Raise InputError unless the threshold can be reached, by different keys."""
        different = len({key.keyid for key in self.keys})
        if different != len(self.keys) or not 1 <= self.threshold <= different:
            raise InputError(
                f"{role}: {self.threshold} of {len(self.keys)} keys, {different} of them different",
                required="different keys, and a threshold of 1 to their number",
                next_step="name each key once, or lower the threshold",
            )


class RoleState(Value, kw_only=True):
    """What is published of a role; `expires` is UTC in ISO 8601."""

    role: str
    version: int
    keys: int
    threshold: int
    expires: str
    expired: bool


def begin(edition: Edition, roles: Mapping[str, RoleKeys]) -> None:
    """Start an empty repository with the keys of its four top-level roles."""
    root = Root(consistent_snapshot=True)
    for role in TOP_LEVEL:
        _set_keys(root, role, roles[role])
    expires = datetime.now(UTC).replace(microsecond=0)  # replaced when it is signed
    first: dict[str, Signed] = {
        "root": root,
        "targets": Targets(expires=expires),
        "snapshot": Snapshot(expires=expires, meta={}),
        "timestamp": Timestamp(expires=expires),
    }
    for role, signed in first.items():
        edition.create(role, signed)


def delegate(edition: Edition, product: str, keys: RoleKeys) -> None:
    """Let `keys` sign the bundles of one product, and nothing else: the paths `PRODUCT/*`."""
    keys.check(product)
    try:
        check_identifier("product", product)
    except ValueError as error:
        raise InputError(str(error), next_step="name it as bundles of the product do") from error
    targets = edition.change("targets", Targets)
    if product in TOP_LEVEL or (targets.delegations and product in (targets.delegations.roles or {})):
        raise RepositoryError(
            f"{product!r} is a role already", required="a new product", next_step="use `edgewise repo rotate`"
        )
    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    roles = targets.delegations.roles
    if roles is None:
        raise RepositoryError("targets delegates to bins", required="delegations per product")
    roles[product] = DelegatedRole(product, [], keys.threshold, terminating=True, paths=[f"{product}/*"])
    for key in keys.keys:
        targets.add_key(key, product)
    edition.create(product, Targets(expires=datetime.now(UTC).replace(microsecond=0)))


def add_bundle(edition: Edition, files: Files, path: Path) -> Image:
    """Add a sealed bundle to its product, put the file up, and raise the product's security floor to the bundle's.

    Raises BundleError, RepositoryError where the version exists with other content or lies below the floor.
    """
    with Bundle.open(path) as bundle:
        manifest = bundle.sealed
        digest, whole = hashlib.sha256(bundle.manifest_bytes).hexdigest(), bundle.digest()
    product, name = manifest.product, image_target(manifest.product, manifest.version)
    role = edition.change(product, Targets)
    floors = [manifest.security_floor, *(release_in(each.custom or {}).floor for each in role.targets.values())]
    floor = max(floors, key=version_numbers)
    release = SignedRelease(product=product, version=manifest.version, digest=digest, floor=floor)
    if not release.allowed_above(floor):
        raise RepositoryError(
            f"{product} {manifest.version} is below the security floor {floor}",
            required="a version that devices may take",
            next_step="seal a newer version",
        )
    target = TargetFile.from_file(name, str(path), ["sha256"])
    known = role.targets.get(name)
    if target.hashes != {"sha256": whole} or (known is not None and known.hashes != target.hashes):
        raise RepositoryError(
            f"{name} is published with other content",
            required="a new version for new content",
            next_step="seal the bundle with a higher version",
        )
    target.unrecognized_fields["custom"] = custom_of(release)
    role.targets[name] = target
    for each in role.targets.values():
        signed = msgspec.structs.replace(release_in(each.custom or {}), floor=floor)
        each.unrecognized_fields["custom"] = {**(each.custom or {}), **custom_of(signed)}
    files.write(f"targets/{product}/{whole}.{name.partition('/')[2]}", path)
    return image_of(role, product, manifest.version)


def image_of(role: Targets, product: str, version: str) -> Image:
    """Return a published bundle as a policy names it. Raises RepositoryError."""
    name = image_target(product, version)
    target = role.targets.get(name)
    if target is None:
        raise RepositoryError(f"{name} is not published", required="a bundle of the repository", next_step="add it")
    release = release_in(target.custom or {})
    return Image(
        release=Release(product=product, version=version, digest=release.digest),
        target=name,
        length=target.length,
        sha256=target.hashes["sha256"],
    )


def rotate(edition: Edition, role: str, keys: RoleKeys) -> None:
    """Give a role other keys. The role is signed anew by them; a root also by the keys before."""
    keys.check(role)
    if role in TOP_LEVEL:
        root = edition.change("root", Root)
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        _set_keys(root, role, keys)
    else:
        targets = edition.change("targets", Targets)
        delegated = targets.delegations.roles.get(role) if targets.delegations and targets.delegations.roles else None
        if delegated is None:
            raise RepositoryError(f"there is no role {role!r}", required="a top-level role or a product")
        for keyid in list(delegated.keyids):
            targets.revoke_key(keyid, role)
        delegated.threshold = keys.threshold
        for key in keys.keys:
            targets.add_key(key, role)
    renew(edition, role)


def renew(edition: Edition, role: str) -> None:
    """Sign a role anew, with a new expiry date."""
    kinds: Mapping[str, type[Signed]] = {"root": Root, "snapshot": Snapshot, "timestamp": Timestamp}
    edition.change(role, kinds.get(role, Targets))


def states(edition: Edition, now: datetime) -> tuple[RoleState, ...]:
    """Return what is published of every role, the top-level ones first."""
    root, targets = edition.read("root", Root), edition.read("targets", Targets)
    delegated = dict(targets.delegations.roles or {}) if targets.delegations else {}
    found = []
    for role in (*TOP_LEVEL, *delegated):
        signed: Signed = edition.read(role, Signed)  # type: ignore[type-abstract] # any of them
        named = delegated.get(role) or root.roles[role]
        found.append(
            RoleState(
                role=role,
                version=signed.version,
                keys=len(named.keyids),
                threshold=named.threshold,
                expires=signed.expires.isoformat(),
                expired=signed.is_expired(now),
            )
        )
    return tuple(found)


def _set_keys(root: Root, role: str, keys: RoleKeys) -> None:
    keys.check(role)
    root.roles[role].threshold = keys.threshold
    for key in keys.keys:
        root.add_key(key, role)
