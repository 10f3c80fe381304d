"""A split of image or sound files, decoded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgewise.forge.data.digest import digest_files
from edgewise.forge.data.listing import Listing
from edgewise.forge.tasks.base import Array, Sample
from edgewise.runtimes.base import TensorSpec

Decode = Callable[[Path], Array]


class FileDataset:
    """Files and how one becomes the model's only input."""

    def __init__(self, path: Path, *, listing: Listing, spec: TensorSpec, decode: Decode) -> None:
        """Decode the first file, so that options that do not fit are refused now; raises DataError."""
        self._path = path
        self._listing = listing
        self._spec = spec
        self._decode = decode
        decode(listing.entries[0].path)

    @property
    def name(self) -> str:
        """The folder or table."""
        return str(self._path)

    @property
    def decode(self) -> Decode:
        """How one file becomes the model's input."""
        return self._decode

    @property
    def targets(self) -> Sequence[Any] | None:
        """One target per file, or None where there are no labels."""
        found = tuple(entry.target for entry in self._listing.entries)
        return None if all(target is None for target in found) else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Files that were left out."""
        return self._listing.warnings

    @property
    def are_images(self) -> bool:
        """Whether these are images, and not sounds."""
        return self._listing.are_images

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._listing.entries)

    def __getitem__(self, index: int, /) -> Sample:
        """Decode one file; raises IndexError outside the split and DataError where it cannot be used."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        entry = self._listing.entries[index]
        return Sample(feeds={self._spec.name: self._decode(entry.path)}, target=entry.target)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all files in order and of the targets."""
        targets = msgspec.json.encode([entry.target for entry in self._listing.entries])
        return digest_files((entry.path for entry in self._listing.entries), extra=targets)

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one file's bytes."""
        return bytes.fromhex(digest_files((self._listing.entries[index].path,)))
