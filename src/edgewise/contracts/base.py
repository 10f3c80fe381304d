"""The one base class of all contract values."""

from __future__ import annotations

from typing import dataclass_transform

import msgspec


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frozen value: keyword-only, unknown fields refused when decoded.

    The decorator tells type checkers that subclasses inherit all three, as they do at run time.
    """
