"""The latest time that was trusted, so that a clock set back does not bring expired metadata back to life.

Kept is the clock's time of a refresh that succeeded. At that time the timestamp metadata were not yet
expired, so a clock set forward moves it at most to that expiry, never to the end of the century.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from edgewise.device.trust.writing import write_whole

NAME = "trusted-time"


def reference_time(folder: Path, now: datetime) -> datetime:
    """Return `now`, or the time of the last successful refresh where the clock stands before it."""
    now = now.astimezone(UTC).replace(microsecond=0)
    with contextlib.suppress(OSError, ValueError):  # none was kept: the clock is all there is
        return max(now, datetime.fromisoformat((folder / NAME).read_text("ascii")).astimezone(UTC))
    return now


def last_time(folder: Path, otherwise: datetime) -> datetime:
    """Return the time of the last successful refresh; `otherwise` where none was kept."""
    return reference_time(folder, datetime.min.replace(tzinfo=UTC)) if (folder / NAME).exists() else otherwise


def keep_time(folder: Path, trusted: datetime) -> None:
    """Keep the time of a refresh that succeeded. Raises OutputError."""
    data = trusted.isoformat().encode()
    with contextlib.suppress(OSError):
        if (folder / NAME).read_bytes() == data:
            return
    write_whole(folder / NAME, data)
