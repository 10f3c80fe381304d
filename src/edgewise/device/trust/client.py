"""One signed repository as a device sees it: refresh, find, download.

The workflow is the TUF specification's (section 5), done by python-tuf. The root of trust is given by
the caller, from what was enrolled; python-tuf keeps copies of roots in its folder, and walks through
them only as a chain of signatures from the given one.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from edgewise.device.trust.clock import keep_time, last_time, reference_time
from edgewise.device.trust.download import download
from edgewise.device.trust.fetcher import Fetcher, Kept
from edgewise.device.trust.refusals import refusals
from edgewise.device.trust.transport import IN_PATH, Transport, check_address
from edgewise.device.trust.writing import refused, write_whole
from edgewise.errors import DigestError, MetadataError, UnknownTargetError


class SignedTarget:
    """A file that trusted roles signed: its name, length (bytes), digests by algorithm, and signed extra fields."""

    def __init__(self, file: TargetFile) -> None:
        """Wrap python-tuf's value."""
        self._file = file
        self.name = file.path
        self.length = file.length
        self.digests: Mapping[str, str] = file.hashes
        self.custom: Mapping[str, object] = file.custom or {}

    def verify(self, data: BinaryIO) -> None:
        """Raise DigestError unless `data` is the signed file."""
        try:
            self._file.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            raise DigestError(
                f"{self.name}: {error}",
                required=f"the {self.length} bytes that were signed",
                next_step="report it: the server offers another file under a signed name",
            ) from error

    def is_at(self, path: Path) -> bool:
        """Return whether the file is there already, whole and unchanged."""
        try:
            with path.open("rb") as data:
                self.verify(data)
        except (OSError, DigestError):
            return False
        return True


class _Updater(Updater):
    """python-tuf's client with our reference time (its own is the computer's clock) and durable files."""

    def set_time(self, reference: datetime) -> None:
        self._trusted_set.reference_time = reference

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Put metadata on the disk before they count: a timestamp lost in a power cut would allow a rollback."""
        path = Path(filename)
        with contextlib.suppress(OSError):
            if path.read_bytes() == data:  # the enrolled root, at each start
                return
        write_whole(path, data)

    def file_name(self, target: SignedTarget) -> str:
        """Return the path below the targets' address (TUF, section 6.2: consistent snapshots carry the digest)."""
        folder, slash, name = target.name.rpartition("/")
        prefix = f"{next(iter(target.digests.values()))}." if self._trusted_set.root.consistent_snapshot else ""
        # A name is no address: what would begin a query or a fragment, or stand for another character, is encoded.
        return quote(f"{folder}{slash}{prefix}{name}", safe=IN_PATH.replace("%", ""))


class RepositoryClient:
    """The trusted state of one repository, in one folder.

    Only one process at a time works on a folder: a lock file makes a second one wait. After a refusal or
    a network failure the folder holds what was trusted before, and `find` works on it again after the
    next `refresh`.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        *,
        metadata_url: str,
        targets_url: str,
        transport: Transport,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the enrolled root. Raises UnsafeAddressError."""
        self._folder = folder
        self._root = root
        self._metadata_url = metadata_url
        self._targets_url = targets_url if targets_url.endswith("/") else f"{targets_url}/"
        self._transport = transport
        self._now = now
        self._updater: _Updater | None = None
        self._fetcher = Fetcher(transport, folder)
        for url in (metadata_url, targets_url):
            check_address(url)

    @property
    def asked_pace(self) -> tuple[str | None, str | None]:
        """Interval (seconds) and jitter at which the server wants to be polled, in its own words; None: not said."""
        return self._fetcher.asked_pace

    def check_root(self) -> None:
        """Raise TrustError unless the given root is a well-formed one that its own keys signed; no network."""
        with self._alone():
            self._open()

    def refresh(self) -> None:
        """Bring the top-level metadata up to date. Raises TrustError, TransferError, OutputError."""
        with self._alone():
            self._refresh()

    def recall(self) -> None:
        """Let `find` work on what was trusted last, from the disk alone and as of then: what expired since counts too.

        Raises TrustError, and TransferError where a part of it is not there any more.
        """
        with self._alone():
            self._updater = None
            updater = _Updater(str(self._folder), self._metadata_url, fetcher=Kept(self._folder), bootstrap=self._root)
            updater.set_time(last_time(self._folder, self._now()))
            updater.refresh()
            self._updater = updater

    def find(self, name: str) -> SignedTarget:
        """Return what trusted roles say of `name`; delegated metadata are fetched as needed, refreshed once.

        Raises UnknownTargetError where none of them knows it, else as `refresh`.
        """
        with self._alone():
            updater = self._updater or self._refresh()
            found = updater.get_targetinfo(name)
        if found is None:
            raise UnknownTargetError(
                f"no trusted role signed a target {name!r}",
                required="a target of the repository",
                next_step="check the name, and that its release was published",
            )
        return SignedTarget(found)

    def download(self, target: SignedTarget, path: Path) -> None:
        """Fetch the file to `path`, unless it is there already. Raises TrustError, TransferError, OutputError."""
        if target.is_at(path):
            return
        updater = self._updater
        if updater is None:
            with self._alone():
                updater = self._refresh()
        digest = _checked_digest(target)
        download(
            self._transport,
            self._targets_url + updater.file_name(target),
            path,
            length=target.length,
            name=digest,
            verify=target.verify,
        )

    def _refresh(self) -> _Updater:
        self._updater = None
        updater = self._open()
        reference = reference_time(self._folder, self._now())
        updater.set_time(reference)
        updater.refresh()
        keep_time(self._folder, reference)
        self._fetcher.keep_tag()
        self._updater = updater
        return updater

    def _open(self) -> _Updater:
        """Return a client that trusts the given root and nothing else yet."""
        self._fetcher = Fetcher(self._transport, self._folder)
        return _Updater(
            str(self._folder),
            self._metadata_url,
            fetcher=self._fetcher,
            bootstrap=self._root,
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock, and translate what goes wrong."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / ".lock").open("w")
        except OSError as error:
            raise refused(self._folder, error) from error
        with lock, refusals(self._folder, lambda: self._fetcher.role):
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _checked_digest(target: SignedTarget) -> str:
    """Return the digest that the file is found by. Raises MetadataError where it could name another place."""
    digest = next(iter(target.digests.values()))
    if re.fullmatch("[0-9a-f]{32,128}", digest) is None:
        raise MetadataError(
            f"{target.name}: the digest {digest[:80]!r}",
            required="a digest in lower-case hex",
            next_step="report it: a trusted key signed malformed metadata",
        )
    return digest


def local_name(target: str) -> str:
    """Return a target's name as one file name: no folder, nothing above."""
    name = quote(target, safe="")
    return name.replace(".", "%2E") if name in {".", ".."} else name
