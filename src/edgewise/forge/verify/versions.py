"""Documents of another version: told by the number that they carry, before anything else in them is read."""

from __future__ import annotations

import msgspec

from edgewise.errors import ConfigError


class _Head(msgspec.Struct, frozen=True):
    format_version: int | None = None


def check_version(data: bytes, *, supported: int, name: str, next_step: str) -> None:
    """Raise ConfigError where a JSON document says that it is of a version other than `supported`.

    What is no document at all is left to whoever decodes it.
    """
    try:
        found = msgspec.json.decode(data, type=_Head).format_version
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if found is not None and found != supported:
        raise ConfigError(
            f"{name} is a document of version {found}",
            required=f"version {supported}, the one that this edgewise writes and reads",
            next_step=next_step,
        )
