"""An API key that cannot be printed by accident."""

from __future__ import annotations

import os
from pathlib import Path

from edgewise.errors import ConfigError

_MOST = 4096


class Secret:
    """A text that shows as asterisks; `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep it."""
        self._text = text

    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return "Secret(***)"

    def __reduce__(self) -> str:
        """Refuse to be pickled or copied into a file."""
        raise TypeError("a secret is not pickled")

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text


def read_secret(*, file: str, variable: str) -> Secret | None:
    """Return the key in a file or a variable of the environment, None where neither is named.

    Raises ConfigError, which never holds the key, where it is missing or cannot stand in a header.
    """
    if not file and not variable:
        return None
    place = file or f"the variable {variable}"
    try:
        text = Path(file).read_bytes()[: _MOST + 2].decode("ascii") if file else os.environ[variable]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"no API key can be read from {place}", required="a file or variable that holds it"
        ) from error
    text = text.strip()
    if not text or len(text) > _MOST or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"what {place} holds is no API key", required=f"1 to {_MOST} printable ASCII characters without spaces"
        )
    return Secret(text)
