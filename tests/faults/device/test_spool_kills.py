"""The process that stores telemetry is killed at every system call that changes the disk; none is left out."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.contracts.telemetry import Envelope, decode_envelope
from edgewise.device.uplink import spool as spools
from edgewise.device.uplink.spool import BROKEN, NAME, Spool
from edgewise.errors import OutputError
from tests.faults.device.tracing import NEVER, killed_at
from tests.unit.device.uplink.devices import window

LIMIT = 5_000  # four windows
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: hundreds of flushes wait for a disk otherwise."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="edgewise-") as folder:
        yield Path(folder)


def work(folder: Path, told: mmap.mmap) -> None:
    """Store, merge, drop, send and store again; say each step when it is done."""
    spool = Spool.open(folder, limit_bytes=LIMIT)
    for number in range(5):  # two are merged
        spool.put([window(number)])
        told.write(b"p")
    batch = spool.claim(most=2, most_bytes=1 << 20)
    told.write(b"c")
    for number in range(5, 7):  # of variants of their own: the oldest that may go is dropped
        spool.put([window(number, variant=f"v{number}")])
        told.write(b"p")
    spool.acknowledged([each.number for each in batch])
    told.write(b"a")
    spool.put([window(7)])
    told.write(b"p")
    spool.close()


def drained(spool: Spool) -> list[Envelope]:
    found: list[Envelope] = []
    while batch := spool.claim(most=9, most_bytes=1 << 20):
        found += [decode_envelope(each.document) for each in batch]
        spool.acknowledged([each.number for each in batch])
    return found


def run(folder: Path, step: int) -> tuple[bool, int, bytes]:
    folder.mkdir()
    with mmap.mmap(-1, 64) as told:  # outlives the child
        was_killed, made = killed_at(step, lambda: work(folder, told))
        return was_killed, made, told[:].rstrip(b"\0")


def test_a_kill_at_every_write_loses_nothing_that_was_stored(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "LEAST_LIMIT_BYTES", 0)
    was_killed, steps, said = run(memory / "whole", NEVER)
    assert (was_killed, said) == (False, b"pppppcppap")
    spool = Spool.open(memory / "whole", limit_bytes=LIMIT)
    whole = drained(spool)
    assert sum(each.lost_windows for each in whole) + spool.held().lost_windows > 0, "nothing was dropped"
    spool.close()
    sent = 8 - sum(each.counters["requests"] + each.lost_windows for each in whole) - spool_lost(memory / "whole")
    assert sent > 2, "nothing was merged"  # the two that were acknowledged hold three windows or more
    assert steps > 40
    for step in range(1, steps + 1):
        folder = memory / f"at-{step}"
        was_killed, made, said = run(folder, step)
        assert (was_killed, made) == (True, step)
        spool = Spool.open(folder, limit_bytes=LIMIT)
        assert not (folder / BROKEN).exists()
        found = drained(spool)
        here = sum(each.counters["requests"] + each.lost_windows for each in found) + spool.held().lost_windows
        stored = said.count(b"p")
        away = {0, sent} if said.endswith((b"cpp", b"a")) else ({sent} if b"a" in said else {0})
        assert here in {stored + more - gone for more in (0, 1) for gone in away}, (step, said)
        spool.put([window(99)])  # it goes on
        assert len(drained(spool)) == 1
        spool.close()


def fill(spool: Spool) -> None:
    for number in range(1, 99):
        spool.put([window(number)])


def spool_lost(folder: Path) -> int:
    spool = Spool.open(folder, limit_bytes=LIMIT)
    lost = spool.held().lost_windows
    spool.close()
    return lost


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_spool_is_set_aside_and_counted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    spool = Spool.open(tmp_path)
    spool.put([window(0)])
    (found,) = drained(spool)
    spool.close()
    assert found.lost_windows == 1
    assert (tmp_path / BROKEN).read_bytes() == content


def test_a_page_that_the_disk_has_changed_is_found(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.put([window(number) for number in range(200)])
    spool.close()
    data = bytearray((tmp_path / NAME).read_bytes())
    data[4096 * 5 : 4096 * 6] = bytes(4096)
    (tmp_path / NAME).write_bytes(data)
    spool = Spool.open(tmp_path)
    assert spool.held() == (0, 0, 0, 1)
    spool.close()


def test_a_disk_that_takes_nothing_says_so_and_the_loss_is_counted(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.put([window(0)])
    pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
    spool._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutputError, match="full"):
        fill(spool)
    stored = spool.held().envelopes
    spool._connection.execute("PRAGMA max_page_count = 100000")
    spool.put([window(100)])
    found = drained(spool)
    spool.close()
    assert (len(found), found[-1].lost_windows) == (stored + 1, 1)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Spool.open(tmp_path / "file" / "spool")
    with pytest.raises(ValueError, match="limit"):
        Spool.open(tmp_path, limit_bytes=1)
