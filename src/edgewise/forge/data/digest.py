"""SHA-256 over files, in a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgewise.errors import DataError

CHUNK_BYTES = 1 << 20


def digest_files(paths: Iterable[Path], *, extra: bytes = b"") -> str:
    """Return the SHA-256 (hex) over the length and bytes of each file, in order, and over `extra`.

    One file's content alone decides: not its name, place or date.
    """
    state = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                state.update(path.stat().st_size.to_bytes(8, "little"))
                while size := file.readinto(buffer):
                    state.update(buffer[:size])
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}", next_step="check the path") from error
    state.update(extra)
    return state.hexdigest()
