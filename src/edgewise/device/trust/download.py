"""One file: resumed where it broke off, capped at its signed length, verified, then renamed into its place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgewise.device.trust.transport import Reply, Transport
from edgewise.device.trust.writing import put_in_place, refused
from edgewise.errors import (
    DigestError,
    EndlessDataError,
    OutputError,
    SlowRetrievalError,
    TransferError,
    TruncatedError,
)

PARTIAL_CONTENT, RANGE_REFUSED = 206, 416
ATTEMPTS = 5
"""Connections that may break before a download is left to the next poll."""


def download(
    transport: Transport, url: str, path: Path, *, length: int, name: str, verify: Callable[[BinaryIO], None]
) -> None:
    """Fetch `url` to `path`. What came before a broken connection is kept beside it as a hidden `NAME.partial`.

    `name` must differ for different content: the digest. `verify` reads the whole file and raises DigestError;
    then the partial file is taken away, and `path` is as it was. Raises TransferError, EndlessDataError, OutputError.
    """
    partial = path.with_name(f".{name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = _have(partial, length) > 0
        _fill(transport, url, partial, length)
        try:
            _verified(partial, verify)
        except DigestError:
            if not resumed:
                raise
            _fill(transport, url, partial, length)  # what was kept may have been damaged on the disk
            _verified(partial, verify)
        put_in_place(partial, path)
    except EndlessDataError:
        partial.unlink(missing_ok=True)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()  # a full disk needs the space more than the next attempt does
        raise refused(path, error) from error


def _fill(transport: Transport, url: str, partial: Path, length: int) -> None:
    """Append to the partial file until it has its length; broken connections are taken up again."""
    _check_space(partial, length)
    for attempt in range(ATTEMPTS):
        have = _have(partial, length)
        if have == length and partial.exists():
            return
        try:
            with transport.get(url, {"Range": f"bytes={have}-"} if have else None) as reply:
                _append(reply, partial, have, length)
        except SlowRetrievalError:
            raise
        except TransferError:
            if _have(partial, length) <= have or attempt == ATTEMPTS - 1:
                raise
    missing = length - _have(partial, length)
    if missing:
        raise TruncatedError(
            f"{url}: {missing} bytes are missing after {ATTEMPTS} connections",
            required=f"{length} bytes",
            next_step="try again later: what came is kept and resumed",
        )


def _append(reply: Reply, partial: Path, have: int, length: int) -> None:
    """Write the reply's body after the first `have` bytes, or from the start where the server sends all of it."""
    if reply.status == RANGE_REFUSED:
        partial.unlink(missing_ok=True)
        return
    reply.check_status()
    goes_on = reply.status == PARTIAL_CONTENT and reply.headers.get("content-range", "").startswith(f"bytes {have}-")
    size = have if goes_on else 0
    with partial.open("ab" if goes_on else "wb") as out:
        for chunk in reply.chunks():
            size += len(chunk)
            if size > length:
                raise EndlessDataError(
                    f"{reply.url}: more than the {length} bytes that were signed",
                    required=f"{length} bytes",
                    next_step="the server is broken or hostile: report it; the device goes on with what it has",
                )
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def _verified(partial: Path, verify: Callable[[BinaryIO], None]) -> None:
    try:
        with partial.open("rb") as data:
            verify(data)
    except DigestError:
        partial.unlink()
        raise


def _have(partial: Path, length: int) -> int:
    """Return how much of the file is there; a partial file that is too long is none."""
    try:
        size = partial.stat().st_size
    except FileNotFoundError:
        return 0
    if size > length:
        partial.unlink()
        return 0
    return size


def _check_space(partial: Path, length: int) -> None:
    """Raise OutputError where the disk cannot take the rest, before a byte of it is fetched."""
    needed, free = length - _have(partial, length), shutil.disk_usage(partial.parent).free
    if needed > free:
        raise OutputError(
            f"{partial.parent}: {free} bytes are free",
            required=f"{needed} bytes for the rest of the download",
            next_step="free some space; what was there before is untouched",
        )
