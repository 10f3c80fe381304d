"""Files that are whole or absent after a power cut."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgewise.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write, flush to the disk, then rename. Raises OutputError, with what was there before untouched."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        put_in_place(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise refused(path, error) from error


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a file that is already on the disk, and put the rename itself on the disk. Raises OSError."""
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refused(path: Path, error: OSError) -> OutputError:
    """Return the error for a disk that does not take a file."""
    return OutputError(
        f"{path}: {error.strerror or error}",
        required="a folder that can be written, with space left",
        next_step="free some space; what was there before is untouched",
    )
