"""The folder a run writes to.

It is refused before the work where it cannot be used, and left as it was where the run is refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from edgewise.errors import OutputError

EVIDENCE = "evidence.json"
REPORT = "report.html"
PROOF = "verification.html"
STATE = ".edgewise"
"""What a killed run goes on from; it also marks a folder as a run's."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that a run may write to."""

    folder: Path
    made: tuple[Path, ...]
    """The folders that did not exist before, innermost first."""
    was_empty: bool

    def release(self) -> None:
        """Undo everything since the claim, where the folder held nothing before it."""
        if not self.was_empty:
            return
        for each in self.folder.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)
        for each in self.made:
            try:
                each.rmdir()
            except OSError:  # somebody else has put something there since
                return


def claim(folder: Path, *, mark: str = EVIDENCE) -> Claim:
    """Make the folder and see that it can be written. Raises OutputError where it is not a run's to take.

    `mark` is the file that tells a folder with earlier results.
    """
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    if not made and not folder.is_dir():
        raise OutputError(
            f"the output {folder} is a file",
            required="a folder",
            next_step="choose another --output, or remove the file",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(each.name for each in folder.iterdir())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        for each in made:
            if each.is_dir():
                each.rmdir()
        raise OutputError(
            f"the output {folder} cannot be written: {error.strerror}",
            required="a folder that can be written",
            next_step="choose another --output",
        ) from error
    if names and mark not in names and STATE not in names:
        raise OutputError(
            f"the output {folder} holds other things ({', '.join(names[:3])})",
            required=f"an empty or new folder, or one of an earlier run (with {mark})",
            next_step="choose another --output",
        )
    (folder / STATE).mkdir(exist_ok=True)
    return Claim(folder=folder, made=tuple(made), was_empty=not names)
