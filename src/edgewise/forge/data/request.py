"""A calibration request: a split that was chosen for what the fleet sees, held to its digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from edgewise.contracts.curation import CalibrationRequest
from edgewise.errors import DataError
from edgewise.forge.cache import write_atomically

SUFFIX = ".json"


def write_request(found: CalibrationRequest, path: Path) -> CalibrationRequest:
    """Write a request beside its split, with the split's digest; return it so. Raises OutputError."""
    split = Path(found.written)
    whole = msgspec.structs.replace(
        found,
        written=os.path.relpath(split, path.parent),
        sha256=hashlib.sha256(split.read_bytes()).hexdigest(),
    )
    write_atomically(path, msgspec.json.format(msgspec.json.encode(whole), indent=2))
    return whole


def split_of(path: Path) -> Path:
    """Return the split that a request names. Raises DataError where it is no request, or the split was changed."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=CalibrationRequest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is no calibration request: {error}",
            required="what edgewise data select --from-fleet writes",
            next_step="name a data file or folder, or select again",
        ) from error
    split = path.parent / found.written
    try:
        digest = hashlib.sha256(split.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} names {split}, which cannot be read: {error.strerror}",
            required="the split beside its request",
            next_step="move both together, or select again",
        ) from error
    if digest != found.sha256:
        raise DataError(
            f"{split} was changed since {path} was written",
            required=f"the SHA-256 {found.sha256[:16]}...",
            next_step="select again, or name the split itself as calibrate",
        )
    return split
