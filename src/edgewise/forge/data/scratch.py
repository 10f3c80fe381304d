"""A temporary folder that goes away with its owner."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

_NOBODY = -1
"""No process has this number: what it owns is never deleted."""


class Scratch:
    """A folder under TMPDIR, deleted on `close`, when the owner is collected, or at exit.

    A copy in another process (pickled or forked) reads the same files and deletes nothing.
    """

    def __init__(self) -> None:
        """Create the folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="edgewise-"))
        self._finalizer: weakref.finalize[[Path, int], Scratch] = weakref.finalize(
            self, _delete, self.folder, os.getpid()
        )

    def close(self) -> None:
        """Delete the folder now, if this process made it."""
        self._finalizer()

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process as the path alone."""
        return _borrow, (self.folder,)


def _borrow(folder: Path) -> Scratch:
    borrowed = Scratch.__new__(Scratch)
    borrowed.folder = folder
    borrowed._finalizer = weakref.finalize(borrowed, _delete, folder, _NOBODY)  # noqa: SLF001 - made here
    return borrowed


def _delete(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
