"""The few things needed of a store: read, write, list. A write is whole or does not happen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from edgewise.errors import NotFoundError, StorageError
from edgewise.fleet.store.objects import open_objects


class Files:
    """Files by path below a place in a store. Every method raises StorageError where the store does not answer."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        """Take an open store."""
        self._store = store
        self._place = place

    def read(self, path: str) -> bytes:
        """Return a whole file. Raises NotFoundError."""
        with _answering(path):
            return bytes(obstore.get(self._store, f"{self._place}/{path}").bytes())

    def write(self, path: str, data: bytes | Path) -> None:
        """Write a whole file or nothing."""
        with _answering(path):
            obstore.put(self._store, f"{self._place}/{path}", data)

    def delete(self, path: str) -> None:
        """Take a file away; one that is not there is no fault."""
        with contextlib.suppress(NotFoundError), _answering(path):
            obstore.delete(self._store, f"{self._place}/{path}")

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in a folder, ascending."""
        prefix = f"{self._place}/{folder}"
        with _answering(folder):
            found = [meta["path"] for batch in obstore.list(self._store, prefix) for meta in batch]
        return tuple(sorted(path.removeprefix(f"{prefix}/") for path in found))


def open_files(url: str, place: str) -> Files:
    """Return the files of a store by URL or folder, as `fleet serve` takes it. Raises ConfigError."""
    return Files(open_objects(url).store, place)


@contextlib.contextmanager
def _answering(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (BaseError, OSError) as error:
        raise StorageError(
            f"the object store did not answer for {path}: {type(error).__name__}",
            next_step="see that it runs and can be written",
        ) from error
