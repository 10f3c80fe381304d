"""Writes a file of any size whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgewise.errors import OutputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends, and is gone where it raises.

    Its bytes are on the disk before its name is. Raises OutputError where the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror or error}",
            required="a folder that can be written, with space left",
            next_step="free some space or choose another place",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or in a folder that is refused itself
            partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
