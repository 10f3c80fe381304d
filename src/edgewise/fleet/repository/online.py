"""The keys a server holds, and keeping what they sign fresh."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Snapshot, Timestamp

from edgewise.fleet.repository.edition import LIFETIMES, ONLINE, Edition
from edgewise.keys.files import load_public, open_signer, save_pair
from edgewise.keys.pair import generate

NAMES = ("snapshot", "timestamp", "director")
"""The director's targets, snapshot and timestamp share one key: whoever has one of them can direct anyhow."""


def make_online_keys(folder: Path, *, passphrase: bytes | None) -> dict[str, Key]:
    """Make the keys that are not there yet and return the public halves by name.

    Raises OutputError, KeyFileError.
    """
    for name in NAMES:
        if not (folder / f"{name}.pub").exists():
            save_pair(generate(), folder / f"{name}.pem", passphrase=passphrase)
    return {name: load_public(folder / f"{name}.pub") for name in NAMES}


def online_signers(folder: Path, *, passphrase: bytes | None) -> tuple[Signer, ...]:
    """Return what signs with the server's keys. Raises KeyFileError."""
    return tuple(open_signer(str(folder / f"{name}.pem"), passphrase=passphrase) for name in NAMES)


def keep_fresh(edition: Edition, signers: Sequence[Signer], now: datetime) -> bool:
    """Sign snapshot and timestamp anew once half of either's time is over; return whether it was done."""
    left = {
        "snapshot": edition.read("snapshot", Snapshot).expires - now,
        "timestamp": edition.read("timestamp", Timestamp).expires - now,
    }
    if all(left[role] > LIFETIMES[role] / 2 for role in ONLINE):
        return False
    edition.publish(signers)
    return True
