"""The writer of the audit log is killed at every write, fsync, cut, creation and unlink; none is left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.audit.log import AuditLog, AuditOptions
from edgewise.device.audit.reading import read_audit
from tests.faults.device.test_power_cuts import NEVER, Power, memory

__all__ = ["memory"]

OPTIONS = AuditOptions(segments=2, segment_bytes=4096, sync_s=0.0)
COUNT = 6
LONG = "\x01" * 300
"""Six bytes each in JSON: two entries fill a file."""


def noted(folder: Path, tell: int) -> None:
    """Write entries, and tell after each that is on the disk."""
    with AuditLog(folder, OPTIONS) as log:
        for at in range(COUNT):
            log.note(Outcome(kind=OutcomeKind.REFUSED, reason=LONG, variant=str(at)))
            log.flush()
            os.pwrite(tell, bytes([at + 1]), 0)


def killed(folder: Path, power: Power, tell: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            real = os.write

            def write(file: int, data: bytes) -> Any:
                if power.is_cut():
                    real(file, data[: len(data) // 2])
                    os.kill(os.getpid(), 9)
                return real(file, data)

            os.write = write  # type: ignore[assignment] # the child ends here
            for name in ("fsync", "ftruncate", "unlink", "mkdir", "open"):
                setattr(os, name, power.guard(getattr(os, name)))
            noted(folder, tell)
        except BaseException:  # noqa: BLE001 - the parent sees the status
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_kill_at_every_step_leaves_a_chain_up_to_the_last_whole_line(memory: Path) -> None:
    counting = Power(NEVER)
    tell = os.open(memory / "told", os.O_RDWR | os.O_CREAT, 0o600)
    assert killed(memory / "whole", counting, tell) == 0
    steps = counting.steps
    assert steps > 2 * COUNT
    assert read_audit(memory / "whole").dropped > 0
    for at in range(1, steps + 1):
        folder = memory / f"log-{at}"
        os.pwrite(tell, b"\0", 0)
        assert os.WIFSIGNALED(killed(folder, Power(at), tell))
        on_disk = os.pread(tell, 1, 0)[0]
        if any(folder.glob("audit-*.log")):
            found = read_audit(folder)
            assert found.problems == ()
        with AuditLog(folder, OPTIONS) as log:
            log.note(Outcome(kind=OutcomeKind.REFUSED, reason="again"))
        audit = read_audit(folder)
        assert (audit.problems, audit.torn_bytes) == ((), 0)
        numbers = [each.number for each in audit.entries]
        assert numbers == list(range(audit.dropped, audit.dropped + len(numbers)))
        assert audit.entries[-1].reason == "again"
        assert audit.entries[-1].number >= on_disk  # what was on the disk is still counted
        variants = [each.variant for each in audit.entries[:-1]]
        assert variants == [str(each) for each in numbers[:-1]]
    os.close(tell)
