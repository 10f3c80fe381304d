"""Where a passphrase comes from: a file, the environment, a prompt; the first that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgewise.errors import KeyFileError

VARIABLE = "EDGEWISE_PASSPHRASE"
SHORTEST = 8
"""Characters of a new passphrase: what is shorter is found by trying."""


def read_passphrase(
    *, file: Path | None, environment: Mapping[str, str], ask: Callable[[], str] | None = None
) -> bytes:
    """Return the passphrase from `file`, else from EDGEWISE_PASSPHRASE, else by asking.

    A file's last line break is not part of it. Raises KeyFileError where there is none, or an empty one.
    """
    if file is not None:
        try:
            found = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(
                f"the passphrase file {file} cannot be read: {error}",
                required="a text file that holds the passphrase",
                next_step="check its path and its owner",
            ) from error
    elif VARIABLE in environment:
        found = environment[VARIABLE]
    elif ask is not None:
        found = ask()
    else:
        raise KeyFileError(
            "there is no passphrase",
            required="the passphrase of the key",
            next_step=f"name a file that holds it, set {VARIABLE}, or run in a terminal to be asked",
        )
    if not found:
        raise KeyFileError(
            "the passphrase is empty", required="the passphrase of the key", next_step="give the one it was made with"
        )
    return found.encode()


def check_new(passphrase: bytes) -> None:
    """Raise KeyFileError for a new passphrase that is too short."""
    if len(passphrase.decode()) < SHORTEST:
        raise KeyFileError(
            f"the passphrase has {len(passphrase.decode())} characters",
            required=f"at least {SHORTEST}",
            next_step="take a longer one: five random words, say",
        )
