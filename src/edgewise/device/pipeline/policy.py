"""What a stage's mailbox does with an item that arrives while it is full."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from edgewise.errors import ConfigError

MOST_WAITING = 1 << 16


class Full(StrEnum):
    """What gives way in a full mailbox."""

    LATEST = "latest"
    """What has waited longest is dropped: a camera, where only the newest picture is of interest."""
    BLOCK = "block"
    """The one who brings the item waits: a file, where nothing may be lost."""
    REJECT = "reject"
    """The item that arrives is dropped: requests of many, where somebody has to be told early."""


class Policy(NamedTuple):
    """A mailbox that holds up to `size` items that wait."""

    full: Full
    size: int

    def __str__(self) -> str:
        """Return it as it is written: `block(4)`."""
        return f"{self.full}({self.size})"


def latest(size: int = 1) -> Policy:
    """Keep the newest. Raises ConfigError for a size that is no mailbox."""
    return _checked(Full.LATEST, size)


def block(size: int) -> Policy:
    """Let whoever brings more wait. Raises ConfigError."""
    return _checked(Full.BLOCK, size)


def reject(size: int) -> Policy:
    """Turn away what comes too much. Raises ConfigError."""
    return _checked(Full.REJECT, size)


def _checked(full: Full, size: int) -> Policy:
    if not 1 <= size <= MOST_WAITING:
        raise ConfigError(f"a mailbox of {size} items", required=f"from 1 to {MOST_WAITING}")
    return Policy(full, size)
