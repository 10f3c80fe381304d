"""Files in an object store: a folder, S3, GCS or Azure, by URL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from edgewise.errors import ConfigError, NotFoundError, StorageError

CHUNK_BYTES = 1024 * 1024


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file without reading it."""

    size_bytes: int
    etag: str


class Objects:
    """Files by path. Every method raises StorageError where the store does not answer."""

    def __init__(self, store: ObjectStore) -> None:
        """Take an open store; `open_objects` makes one."""
        self.store = store

    async def head(self, path: str) -> Head:
        """Return size and ETag. Raises NotFoundError."""
        with answering(path):
            meta = await obstore.head_async(self.store, path)
        etag = (meta["e_tag"] or f"{meta['size']}-{meta['last_modified'].timestamp()}").strip('"')
        return Head(size_bytes=meta["size"], etag=etag)

    async def read(self, path: str) -> bytes:
        """Return a whole file. Raises NotFoundError."""
        with answering(path):
            return bytes(await (await obstore.get_async(self.store, path)).bytes_async())

    async def read_range(self, path: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) in pieces. Raises NotFoundError."""
        for first in range(start, stop, CHUNK_BYTES):
            with answering(path):
                end = min(first + CHUNK_BYTES, stop)
                piece = bytes(await obstore.get_range_async(self.store, path, start=first, end=end))
            yield piece

    async def write(self, path: str, data: bytes | Path) -> None:
        """Write a whole file or nothing."""
        with answering(path):
            await obstore.put_async(self.store, path, data)

    async def delete(self, path: str) -> None:
        """Take a file away; one that is not there is no fault."""
        with contextlib.suppress(NotFoundError), answering(path):
            await obstore.delete_async(self.store, path)

    async def check(self) -> None:
        """See that the store answers."""
        with contextlib.suppress(NotFoundError), answering("."):
            await obstore.head_async(self.store, "health/none")


def open_objects(url: str) -> Objects:
    """Return the store of a URL (`s3://bucket/prefix`, `gs://`, `az://`) or of a path to a folder.

    Credentials and endpoints come from the environment, as the vendor's own tools read them (AWS_ACCESS_KEY_ID,
    AWS_ENDPOINT, ...). Raises ConfigError where the URL is of no store we know.
    """
    try:
        if "://" not in url:
            return Objects(LocalStore(Path(url).absolute(), mkdir=True))
        if url.startswith("file://"):
            return Objects(LocalStore(Path(url.removeprefix("file://")), mkdir=True))
        return Objects(from_url(url))
    except (BaseError, ValueError, OSError) as error:
        raise ConfigError(
            f"--store {url.partition('?')[0]} cannot be opened: {str(error).splitlines()[0][:200]}",
            required="a folder, s3://bucket/prefix, gs://bucket/prefix or az://account/container",
        ) from error


@contextlib.contextmanager
def answering(path: str) -> Iterator[None]:
    """Turn what an object store raises for a file into NotFoundError or StorageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (BaseError, OSError) as error:
        raise StorageError(
            f"the object store did not answer for {path}: {type(error).__name__}",
            next_step="see that it runs and can be written",
        ) from error
