"""How the process before this one ended: on its own terms, killed, or with the whole device."""

from __future__ import annotations

import contextlib
from pathlib import Path

RUNS = "runs"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def begun(folder: Path) -> bool:
    """Note that a process runs; return whether the one before crashed: ended unasked while the device went on."""
    boot = _boot_id()
    before = None
    with contextlib.suppress(OSError):
        before = (folder / RUNS).read_text("ascii")
    with contextlib.suppress(OSError):  # a full disk is no reason not to serve
        (folder / RUNS).write_text(boot, "ascii")
    return bool(boot) and before == boot


def ended(folder: Path) -> None:
    """Note that the process ends because it was told to."""
    with contextlib.suppress(OSError):
        (folder / RUNS).unlink()


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return ""
