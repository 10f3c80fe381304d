"""The transport in the form that python-tuf asks for, with an ETag for the one file that is polled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edgewise.contracts.base import Value
from edgewise.device.trust.transport import Reply, Transport
from edgewise.device.trust.writing import write_whole
from edgewise.errors import HttpStatusError

NOT_MODIFIED = 304
TAG_NAME = "timestamp.etag"
INTERVAL, JITTER = "edgewise-poll-interval-s", "edgewise-poll-jitter"


class Tag(Value):
    """The ETag under which a server sent the timestamp with this digest."""

    url: str
    etag: str
    sha256: str


class Fetcher(FetcherInterface):
    """Fetches metadata through the transport; `role` is the one that was asked for last.

    The timestamp is asked for with the ETag of the kept one: most polls get 304 and no bytes.
    """

    def __init__(self, transport: Transport, folder: Path) -> None:
        """Take the folder in which the client keeps its metadata."""
        self._transport = transport
        self._folder = folder
        self._tag: Tag | None = None
        self.role = "root"
        self.asked_pace: tuple[str | None, str | None] = (None, None)
        """Interval (seconds) and jitter at which the server wants to be polled, as its last headers said."""

    def keep_tag(self) -> None:
        """Keep the ETag of a timestamp that was found good. Raises OutputError."""
        if self._tag is not None:
            write_whole(self._folder / TAG_NAME, msgspec.json.encode(self._tag))

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = unquote(urlsplit(url).path.rpartition("/")[2]).removesuffix(".json")
        version, _, rest = name.partition(".")
        self.role = rest if version.isdecimal() and rest else name
        if self.role == "timestamp":
            yield from self._timestamp(url)
            return
        with self._transport.get(url) as reply:
            _check(reply)
            yield from reply.chunks()

    def _timestamp(self, url: str) -> Iterator[bytes]:
        tag, kept = self._kept(url)
        with self._transport.get(url, {"If-None-Match": tag} if tag else None) as reply:
            self.asked_pace = (reply.headers.get(INTERVAL), reply.headers.get(JITTER))
            if reply.status == NOT_MODIFIED and tag:
                yield kept
                return
            _check(reply)
            digest = hashlib.sha256()
            for chunk in reply.chunks():
                digest.update(chunk)
                yield chunk
            if etag := reply.headers.get("etag"):
                self._tag = Tag(url=url, etag=etag, sha256=digest.hexdigest())

    def _kept(self, url: str) -> tuple[str, bytes]:
        """Return the ETag and the bytes of the kept timestamp; both empty where they do not go together."""
        try:
            tag = msgspec.json.decode((self._folder / TAG_NAME).read_bytes(), type=Tag)
            data = (self._folder / "timestamp.json").read_bytes()
        except (OSError, msgspec.DecodeError):
            return "", b""
        same = tag.url == url and tag.sha256 == hashlib.sha256(data).hexdigest()
        return (tag.etag, data) if same else ("", b"")


class Kept(FetcherInterface):
    """Gives what the client keeps in its folder, and says of all else that it is not there."""

    def __init__(self, folder: Path) -> None:
        """Take the client's folder."""
        self._folder = folder
        self.role = "root"

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        self.role = name.removesuffix(".json")
        if name != "timestamp.json":  # of the others the kept ones are read before anything is fetched
            raise DownloadHTTPError(f"{name} is not kept here", 404)
        try:
            yield (self._folder / name).read_bytes()
        except OSError as error:
            raise DownloadHTTPError(f"{name}: {error.strerror or error}", 404) from error


def _check(reply: Reply) -> None:
    """Raise python-tuf's error for a status, with ours as its cause: a missing next root is told by its 404."""
    try:
        reply.check_status()
    except HttpStatusError as error:
        raise DownloadHTTPError(str(error), error.status) from error
