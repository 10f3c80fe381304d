"""The few things needed of a store: read, write, list. A write is whole or does not happen."""

from __future__ import annotations

import contextlib
from pathlib import Path

import obstore
from obstore.store import ObjectStore

from edgewise.errors import NotFoundError
from edgewise.fleet.store.objects import answering, open_objects


class Files:
    """Files by path below a place in a store. Every method raises StorageError where the store does not answer."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        """Take an open store."""
        self._store = store
        self._place = place

    def read(self, path: str) -> bytes:
        """Return a whole file. Raises NotFoundError."""
        with answering(path):
            return bytes(obstore.get(self._store, f"{self._place}/{path}").bytes())

    def write(self, path: str, data: bytes | Path) -> None:
        """Write a whole file or nothing."""
        with answering(path):
            obstore.put(self._store, f"{self._place}/{path}", data)

    def delete(self, path: str) -> None:
        """Take a file away; one that is not there is no fault."""
        with contextlib.suppress(NotFoundError), answering(path):
            obstore.delete(self._store, f"{self._place}/{path}")

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in a folder, ascending."""
        prefix = f"{self._place}/{folder}"
        with answering(folder):
            found = [meta["path"] for batch in obstore.list(self._store, prefix) for meta in batch]
        return tuple(sorted(path.removeprefix(f"{prefix}/") for path in found))


def open_files(url: str, place: str) -> Files:
    """Return the files of a store by URL or folder, as `fleet serve` takes it. Raises ConfigError."""
    return Files(open_objects(url).store, place)
