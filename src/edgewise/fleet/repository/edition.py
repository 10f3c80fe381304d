"""A change of metadata: in memory until all of it is signed, then written in a safe order.

All files but the timestamp carry their version in their name and are never written twice, and the
timestamp is written last: a device sees the state before or the state after, wherever the writer stops.
What lacks signatures of other people is put aside in `staged/`, which is not served, until `complete`.

Whoever signs must not sign what somebody planted in the store: everything that is read is verified along
the chain of roots that begins with a root of the signer's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from edgewise.errors import (
    KeyFileError,
    MetadataError,
    MissingSignaturesError,
    NotFoundError,
    RepositoryError,
    SignatureError,
)
from edgewise.fleet.repository.files import Files

S = TypeVar("S", bound=Signed)

LIFETIMES: Mapping[str, timedelta] = {
    "root": timedelta(days=365),
    "targets": timedelta(days=180),
    "snapshot": timedelta(days=14),
    "timestamp": timedelta(days=2),
}
"""How long a signature is good; products' roles as `targets`."""
ONLINE = ("snapshot", "timestamp")
STAGED = "staged"


class Edition:
    """One change. `read` looks, `change` marks a role as changed, `publish` signs and writes."""

    def __init__(
        self,
        files: Files,
        *,
        now: datetime,
        trusted_root: bytes | None,
        lifetimes: Mapping[str, timedelta] = LIFETIMES,
    ) -> None:
        """Read the chain of roots from `trusted_root` on; None starts a repository where none may be yet.

        Raises SignatureError where the chain is broken, RepositoryError where there is none, or one already.
        """
        self._files = files
        self._now = now.replace(microsecond=0)
        self._lifetimes = lifetimes
        self._changed: dict[str, Metadata[Any]] = {}
        self._versions = _highest(files.names("metadata"))
        self._root = None if trusted_root is None else self._latest_root(_parsed(trusted_root, "the trusted root"))
        if trusted_root is None and self._versions:
            raise RepositoryError(
                "there is a repository already",
                required="an empty place in the store",
                next_step="choose another --store, or change the repository that is there",
            )

    def read(self, role: str, kind: type[S]) -> S:
        """Return a role as it is in this edition. Raises RepositoryError where there is none."""
        found = self._changed[role] if role in self._changed else self._published(role)
        if not isinstance(found.signed, kind):
            raise MetadataError(f"{role}: {type(found.signed).__name__}", required=kind.__name__)
        return found.signed

    def change(self, role: str, kind: type[S]) -> S:
        """Return a role to be changed; it is signed anew by `publish`."""
        if role not in self._changed:
            self._changed[role] = self._published(role)
        return self.read(role, kind)

    def create(self, role: str, signed: Signed) -> None:
        """Add a role that was never published."""
        self._changed[role] = Metadata(signed)

    def publish(self, signers: Sequence[Signer]) -> None:
        """Sign every changed role by the signers that its delegator names, then write; stage where some lack.

        Raises MissingSignaturesError after staging; nothing that devices see has changed then.
        """
        for role in self._changed:
            self._renew(role)
        self._sign_and_write(signers)

    def complete(self, signers: Sequence[Signer]) -> tuple[str, ...]:
        """Add signatures to what was staged, and publish once there are enough; return the roles.

        Raises MissingSignaturesError where there are still too few, RepositoryError where nothing is staged.
        """
        for name in self._files.names(STAGED):
            role = name.removesuffix(".json")
            self._changed[role] = _parsed(self._files.read(f"{STAGED}/{name}"), role)
        roles = tuple(self._changed)
        if not roles:
            raise RepositoryError(
                "nothing waits for signatures", required="a staged change", next_step="make the change first"
            )
        for role, metadata in self._changed.items():
            if metadata.signed.version != self._versions.get(role, 0) + 1:
                raise RepositoryError(
                    f"the staged {role} was made before version {self._versions.get(role, 0)} was published",
                    required="a change of what is published now",
                    next_step="make the change again",
                )
        self._sign_and_write(signers)
        return roles

    def _sign_and_write(self, signers: Sequence[Signer]) -> None:
        offline = [role for role in self._changed if role not in ONLINE]
        lacking = self._sign(offline, signers)
        if not lacking:
            self._note(offline)
            lacking = self._sign(ONLINE, signers)
        if lacking:
            for role in offline:
                self._files.write(f"{STAGED}/{role}.json", self._changed[role].to_bytes())
            raise MissingSignaturesError(
                "not published yet: " + "; ".join(lacking),
                required="signatures by the keys that each role names",
                next_step="run `edgewise repo sign` with the missing keys, the online keys last",
            )
        for role in (*offline, *ONLINE):
            version = "" if role == "timestamp" else f"{self._changed[role].signed.version}."
            self._files.write(f"metadata/{version}{role}.json", self._changed[role].to_bytes())
        for role in offline:
            self._files.delete(f"{STAGED}/{role}.json")

    def _note(self, offline: Iterable[str]) -> None:
        """Write the new versions into a new snapshot, and that into a new timestamp."""
        snapshot = self.change("snapshot", Snapshot)
        for role in offline:
            if role != "root":
                snapshot.meta[f"{role}.json"] = self._meta(role)
        self._renew("snapshot")
        self.change("timestamp", Timestamp)
        self._renew("timestamp")

    def _meta(self, role: str) -> MetaFile:
        """Return version, length and digest: a mirror cannot mix states, nor send more than there is."""
        metadata = self._changed[role]
        return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])

    def _renew(self, role: str) -> None:
        """Give a role its next version and expiry; old signatures fall away."""
        metadata = self._changed[role]
        metadata.signed.version = self._versions.get(role, 0) + 1
        metadata.signed.expires = self._now + self._lifetimes.get(role, self._lifetimes["targets"])
        metadata.signatures.clear()

    def _sign(self, roles: Iterable[str], signers: Sequence[Signer]) -> list[str]:
        """Add the signatures of all signers that a role names; return what is lacking, one text a role."""
        lacking = []
        for role in roles:
            metadata = self._changed[role]
            if role == "timestamp":
                metadata.signed.snapshot_meta = self._meta("snapshot")
            delegators = self._delegators(role)
            named = {keyid for each in delegators for keyid in each.get_delegated_role(role).keyids}
            for signer in signers:
                if signer.public_key.keyid in named:
                    try:
                        metadata.sign(signer, append=True)
                    except UnsignedMetadataError as error:
                        if isinstance(error.__cause__, KeyFileError):  # hardware or a key service did not sign
                            raise error.__cause__ from error
                        raise
            try:
                for each in delegators:
                    each.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError as error:
                lacking.append(str(error))
        return lacking

    def _delegators(self, role: str) -> tuple[Root | Targets, ...]:
        """Return who must have named the keys of a role: a new root also needs those of the root before."""
        if role not in {"root", "targets", *ONLINE}:
            return (self.read("targets", Targets),)
        root = self.read("root", Root)
        return (root,) if role != "root" or self._root is None else (self._root.signed, root)

    def _latest_root(self, root: Metadata[Any]) -> Metadata[Root]:
        """Follow the chain of roots in the store; each is signed by the one before and by itself."""
        try:
            root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
            while True:
                number = root.signed.version + 1
                following = _parsed(self._files.read(f"metadata/{number}.root.json"), f"root {number}")
                for each in (root.signed, following.signed):
                    each.verify_delegate("root", following.signed_bytes, following.signatures)
                root = following
        except NotFoundError:
            return root
        except TufRepositoryError as error:
            raise _planted("root", error) from error

    def _published(self, role: str) -> Metadata[Any]:
        """Return a role as published, verified. Raises RepositoryError where there is none, SignatureError."""
        if role == "root":
            if self._root is None:
                raise RepositoryError("there is no root", required="a repository", next_step="run `edgewise repo init`")
            return Metadata.from_bytes(self._root.to_bytes())
        name = role
        if role == "snapshot":
            name = f"{self.read('timestamp', Timestamp).snapshot_meta.version}.{role}"
        elif role not in {"root", "timestamp"}:
            meta = self.read("snapshot", Snapshot).meta.get(f"{role}.json")
            name = f"{meta.version if meta else 0}.{role}"
        try:
            found = _parsed(self._files.read(f"metadata/{name}.json"), role)
        except NotFoundError as error:
            raise RepositoryError(
                f"there is no role {role!r}",
                required="a repository, and a product in it",
                next_step="run `edgewise repo init`, then `edgewise repo delegate PRODUCT`",
            ) from error
        self._versions[role] = max(self._versions.get(role, 0), found.signed.version)
        # Its delegator as published, not as changed here: other keys may be on their way in.
        delegator = self._published("root" if role in {"targets", *ONLINE} else "targets")
        try:
            delegator.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except (TufRepositoryError, ValueError) as error:
            raise _planted(role, error) from error
        return found


def _highest(names: Iterable[str]) -> dict[str, int]:
    """Return the highest version of each role, whether it was published whole or not: no name is used twice."""
    versions: dict[str, int] = {}
    for name in names:
        number, _, role = name.removesuffix(".json").partition(".")
        if number.isdecimal() and role:
            versions[role] = max(versions.get(role, 0), int(number))
    return versions


def _parsed(data: bytes, what: str) -> Metadata[Any]:
    try:
        return Metadata.from_bytes(data)
    except TufRepositoryError as error:
        raise MetadataError(f"{what}: {error}", required="signed metadata", next_step="check the file") from error


def _planted(role: str, error: Exception) -> SignatureError:
    return SignatureError(
        f"{role}: {error}",
        required="metadata in the store that the trusted root's keys signed",
        next_step="sign nothing: somebody changed the store, or the trusted root is of another repository",
    )
