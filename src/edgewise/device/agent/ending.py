"""How the process before this one ended: on its own terms, killed, with the whole device, or because a model hung."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.trust.writing import write_whole
from edgewise.errors import OutputError

RUNS, HUNG = "runs", "hung.json"
IN_A_ROW_S = 3600.0
"""A hang of a process that had lived longer is the first of a row."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Hung(Value, kw_only=True):
    """The last end because of a model: of which bundle (SHA-256 of its file and of its manifest), and why."""

    sha256: str
    release: str
    reason: str
    shadow: bool = False
    """It was scored beside what runs, and answered nobody."""
    in_a_row: int = 1
    told: bool = False
    """A start has reported it."""


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
    """Note that the process ends because it was told to; a row of hangs ends with it."""
    for name in (RUNS, HUNG):
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def note_hung(folder: Path, hung: Hung, lived_s: float) -> None:
    """Note for the next start why this process, which lived so long, ends."""
    before = _hung(folder)
    if before is not None and before.sha256 == hung.sha256 and lived_s < IN_A_ROW_S:
        hung = msgspec.structs.replace(hung, in_a_row=before.in_a_row + 1)
    _keep(folder, hung)


def take_hung(folder: Path) -> Hung | None:
    """Return why the process before this one ended, once; None where no model hung in it."""
    hung = _hung(folder)
    if hung is None or hung.told:
        return None
    _keep(folder, msgspec.structs.replace(hung, told=True))
    return hung


def _keep(folder: Path, hung: Hung) -> None:
    with contextlib.suppress(OutputError):
        write_whole(folder / HUNG, msgspec.json.encode(hung))


def _hung(folder: Path) -> Hung | None:
    try:
        return msgspec.json.decode((folder / HUNG).read_bytes(), type=Hung)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return ""
