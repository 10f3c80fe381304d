"""What a run has found so far, on disk: a killed run goes on from there.

A key is the SHA-256 over everything a value depends on (graph, data, recipe, code and runtime
versions, seed), so a stale value is never found. Each value is one small JSON file, written beside
its place and renamed, so that a kill at any moment leaves whole files only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from edgewise.errors import OutputError

T = TypeVar("T")


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 (hex) over the parts, each with its length, so that none can run into the next."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


class Cache:
    """Values of known types by key, in one folder."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """Make the folder; `fresh` finds nothing in it. Raises OutputError where making it is refused."""
        self._folder = folder
        self._fresh = fresh
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: {error.strerror}",
                required="a folder that can be written",
                next_step="choose another --output",
            ) from error

    def get(self, key: str, kind: type[T]) -> T | None:
        """Return the value, or None where there is none, or none that reads as `kind`."""
        if self._fresh:
            return None
        try:
            return msgspec.json.decode((self._folder / f"{key}.json").read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            return None

    def put(self, key: str, value: object) -> None:
        """Store a value."""
        write_atomically(self._folder / f"{key}.json", msgspec.json.encode(value))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or nothing. Raises OutputError where the disk refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where the folder itself is refused there is nothing to take away
            partial.unlink()
        raise OutputError(
            f"{path}: {error.strerror}",
            required="a folder that can be written, with space left",
            next_step="free some space or choose another --output",
        ) from error


def user_cache() -> Path:
    """Return the folder for what is measured once per machine (XDG Base Directory Specification)."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "edgewise"
