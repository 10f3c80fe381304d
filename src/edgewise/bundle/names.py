"""What a path in a bundle may be: plain, lower case, and safe to create on any file system."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from edgewise.errors import BundleError, UnsafePathError

MANIFEST = "manifest.json"
MODEL_SIGNATURE = "model.sig"
EVIDENCE = "evidence.json"
VERIFICATION = "verification.json"
BOM = "bom.cdx.json"
CARD = "card.md"

MOST_FILES = 1024
MOST_CHARACTERS = 120
MOST_PARTS = 4

_PART = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9_-])?")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
"""Names that are devices on Windows, with any ending."""


def check_name(name: str) -> None:
    """Raise UnsafePathError where a path is not one that a bundle may hold."""
    parts = name.split("/")
    if (
        len(name) > MOST_CHARACTERS
        or len(parts) > MOST_PARTS
        or any(_PART.fullmatch(part) is None or _DEVICES.fullmatch(part) for part in parts)
    ):
        raise UnsafePathError(
            f"the bundle names a file {name[:MOST_CHARACTERS]!r}",
            required=f"at most {MOST_PARTS} parts of a-z, 0-9, '.', '_' and '-', parted by '/'",
            next_step="do not use this file",
        )


def check_names(names: Sequence[str]) -> None:
    """Raise BundleError unless the manifest comes first, the rest ascends, and no file is another's folder."""
    if len(names) > MOST_FILES:
        raise BundleError(f"the bundle holds {len(names)} files", required=f"at most {MOST_FILES}")
    for name in names:
        check_name(name)
    if not names or names[0] != MANIFEST:
        raise BundleError(f"the bundle does not begin with {MANIFEST}", next_step="do not use this file")
    rest = names[1:]
    if any(first >= second for first, second in pairwise(rest)) or MANIFEST in rest:
        raise BundleError(
            "the files of the bundle are not in ascending order, each once", next_step="do not use this file"
        )
    taken = set(names)
    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:depth]) in taken for depth in range(1, len(parts))):
            raise BundleError(
                f"the bundle holds {name!r} and a file where its folder is", next_step="do not use this file"
            )
