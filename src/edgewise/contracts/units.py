"""Units, as they stand in names: `_ms`, `_us`, `_mib`, `_bytes`, `_mj`."""

from __future__ import annotations

BYTES_PER_MIB = 1024 * 1024
US_PER_MS = 1000.0
NS_PER_US = 1000.0
NS_PER_MS = 1_000_000.0


def mib(size_bytes: float) -> float:
    """Return a size in MiB (2**20 bytes)."""
    return size_bytes / BYTES_PER_MIB
