from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device import Runtime
from edgewise.device.audit.log import MOST_WAITING, AuditLog, AuditOptions
from edgewise.device.audit.reading import read_audit
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import FallbackOptions
from edgewise.errors import DataError, OutputError
from tests.unit.device.bundles import SURE, digest_of, extracted

SMALL = AuditOptions(segments=3, segment_bytes=4096, sync_s=0.0)


def refused(reason: str, slack_ms: float | None = None) -> Outcome:
    return Outcome(kind=OutcomeKind.REFUSED, reason=reason, slack_ms=slack_ms)


def filled(folder: Path, count: int, options: AuditOptions = SMALL) -> None:
    with AuditLog(folder, options) as log:
        for at in range(count):
            log.note(refused(f"reason {at}"))
            log.flush()


def test_every_fallback_is_noted_and_no_local_answer(tmp_path: Path) -> None:
    bundle = extracted(tmp_path / "bundle")
    with AuditLog(tmp_path / "audit", SMALL) as log:
        runtime = Runtime.open(bundle, fallback=FallbackOptions(conservative=Conservative(label="stop")), audit=log)
        runtime.infer(SURE, deadline_ms=60_000.0)
        runtime.infer(SURE, deadline_ms=0.0)
        log.flush()
        runtime.use(runtime.ready, degraded="hot")
        runtime.infer(SURE)
    audit = read_audit(tmp_path / "audit")
    assert audit.problems == ()
    assert [(each.kind, each.reason, each.variant, each.bundle, each.number) for each in audit.entries] == [
        (OutcomeKind.CONSERVATIVE, "no time left", None, None, 0),
        (OutcomeKind.LOCAL_DEGRADED, "hot", "fp32", digest_of(bundle), 1),
    ]
    assert (audit.entries[0].least_slack_ms, audit.entries[1].least_slack_ms) == (0.0, None)
    assert oct((tmp_path / "audit" / "audit-00000001.log").stat().st_mode & 0o777) == "0o600"


def test_equal_outcomes_of_a_moment_are_one_entry(tmp_path: Path) -> None:
    ticks = iter(range(1, 100))
    with AuditLog(tmp_path, AuditOptions(sync_s=60.0), clock=lambda: float(next(ticks))) as log:
        log.note(refused("first"))
        log.flush()
        for at in range(10):
            log.note(refused("cold" if at % 2 else "late", slack_ms=-1.0 - at))
    _, late, cold = read_audit(tmp_path).entries
    assert (late.reason, late.count, late.least_slack_ms) == ("late", 5, -9.0)
    assert (cold.reason, cold.count, cold.least_slack_ms) == ("cold", 5, -10.0)
    assert (late.first_unix_ms, late.last_unix_ms) == (2000, 10_000)


def test_rotation_keeps_the_chain_and_says_what_is_gone(tmp_path: Path) -> None:
    filled(tmp_path, 100)
    audit = read_audit(tmp_path)
    assert audit.problems == ()
    assert audit.segments == 3
    assert audit.dropped > 0
    assert [each.number for each in audit.entries] == list(range(audit.dropped, 100))
    assert all(path.stat().st_size <= 4096 for path in tmp_path.glob("audit-*.log"))


def test_a_second_opening_goes_on_and_a_second_writer_is_refused(tmp_path: Path) -> None:
    for _ in range(3):
        filled(tmp_path, 2, AuditOptions(sync_s=0.0))
    assert [each.number for each in read_audit(tmp_path).entries] == list(range(6))
    assert read_audit(tmp_path).segments == 1
    with AuditLog(tmp_path), pytest.raises(OutputError, match="another"):
        AuditLog(tmp_path)
    AuditLog(tmp_path).close()


def first(folder: Path) -> Path:
    return min(folder.glob("audit-*.log"))


def last(folder: Path) -> Path:
    return max(folder.glob("audit-*.log"))


def changed(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def without_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[number]
    path.write_bytes(b"".join(lines))


def swapped(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    path.write_bytes(b"".join(lines))


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a word": lambda folder: changed(last(folder), b"reason", b"raisin"),
    "a count": lambda folder: changed(last(folder), b'"count":1', b'"count":0'),
    "a line removed": lambda folder: without_line(last(folder), 2),
    "two lines swapped": lambda folder: swapped(last(folder)),
    "a header": lambda folder: changed(last(folder), b'"segment":', b'"segment": '),
    "a file removed": lambda folder: sorted(folder.glob("audit-*.log"))[1].unlink(),
    "the end of an older file": lambda folder: without_line(first(folder), -1),
    "bytes after an older file": lambda folder: first(folder).write_bytes(first(folder).read_bytes() + b"x"),
    "no longer text": lambda folder: first(folder).write_bytes(b"\xff\n" + first(folder).read_bytes()),
    "emptied": lambda folder: first(folder).write_bytes(b""),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_change_is_found_and_the_log_goes_on_after_it(tmp_path: Path, tampering: str) -> None:
    filled(tmp_path, 40)
    assert not read_audit(tmp_path).problems
    TAMPERINGS[tampering](tmp_path)
    assert read_audit(tmp_path).problems
    # What is written later is there, and the break stays visible.
    filled(tmp_path, 1, AuditOptions(segments=9, sync_s=0.0))
    later = read_audit(tmp_path)
    assert later.problems
    assert later.entries[-1].reason == "reason 0"


def test_a_shorter_end_is_found_by_a_head_that_was_noted_elsewhere(tmp_path: Path) -> None:
    """The chain alone cannot tell that its last lines are gone: that is why the head is to be noted."""
    filled(tmp_path, 5, AuditOptions(sync_s=0.0))
    head = read_audit(tmp_path).head
    assert read_audit(tmp_path).holds(head)
    filled(tmp_path, 1, AuditOptions(sync_s=0.0))
    assert read_audit(tmp_path).holds(head)
    without_line(last(tmp_path), -1)
    without_line(last(tmp_path), -1)
    audit = read_audit(tmp_path)
    assert audit.problems == ()
    assert not audit.holds(head)


def test_a_line_that_was_cut_off_is_no_problem_and_is_taken_away(tmp_path: Path) -> None:
    filled(tmp_path, 3, AuditOptions(sync_s=0.0))
    with last(tmp_path).open("ab") as out:
        out.write(b"0123")
    audit = read_audit(tmp_path)
    assert (audit.problems, audit.torn_bytes, len(audit.entries)) == ((), 4, 3)
    filled(tmp_path, 1, AuditOptions(sync_s=0.0))
    audit = read_audit(tmp_path)
    assert (audit.problems, audit.torn_bytes, len(audit.entries)) == ((), 0, 4)


def test_what_a_full_disk_did_not_take_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    full = threading.Event()

    def write(file: int, data: bytes) -> int:
        if not full.is_set():
            return real(file, data)
        real(file, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with AuditLog(tmp_path, SMALL) as log:
        log.note(refused("before"))
        log.flush()
        full.set()
        for _ in range(3):
            log.note(refused("meanwhile"))
            log.flush()
        assert "No space" in log.problem
        full.clear()
        log.note(refused("after"))
        log.flush()
        assert log.problem == ""
    audit = read_audit(tmp_path)
    assert audit.problems == ()
    assert [(each.reason, each.lost_before) for each in audit.entries] == [("before", 0), ("after", 3)]


def test_noting_never_waits_and_counts_what_it_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = os.fsync

    def fsync(file: int) -> None:
        gate.wait(30)
        real(file)

    with AuditLog(tmp_path, SMALL) as log:
        monkeypatch.setattr(os, "fsync", fsync)
        log.note(refused("holds the disk"))
        while log.waiting:
            pass
        for _ in range(MOST_WAITING + 7):
            log.note(refused("more"))
        gate.set()
    entries = read_audit(tmp_path).entries
    assert [(each.reason, each.count, each.lost_before) for each in entries] == [
        ("holds the disk", 1, 0),
        ("more", MOST_WAITING, 7),
    ]


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_audit(tmp_path / "absent")
    with pytest.raises(DataError):
        read_audit(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        AuditLog(tmp_path / "file")
    (tmp_path / "audit-00000001.log").symlink_to(tmp_path / "file")
    with pytest.raises(DataError):
        read_audit(tmp_path)
    with pytest.raises(DataError):
        AuditLog(tmp_path)
    (tmp_path / "audit-00000001.log").unlink()
    AuditLog(tmp_path).close()  # the lock was given back


def test_a_cached_answer_is_the_same_and_its_own(tmp_path: Path) -> None:
    bundle = extracted(tmp_path)
    runtime = Runtime.open(bundle, fallback=FallbackOptions(cache_bytes=10_000))
    other = {"x": SURE["x"] + 1}
    answers: list[Any] = [runtime.infer(each) for each in (SURE, other, SURE, other)]
    kinds = [each.outcome.kind for each in answers]
    assert kinds == [OutcomeKind.LOCAL, OutcomeKind.LOCAL, OutcomeKind.CACHED, OutcomeKind.CACHED]
    assert np.array_equal(answers[2].outputs["y"], SURE["x"].reshape(1, 3))
    assert np.array_equal(answers[3].outputs["y"], other["x"].reshape(1, 3))
    assert not answers[2].outputs["y"].flags.writeable
    assert (answers[2].outcome.variant, answers[2].outcome.bundle) == ("fp32", digest_of(bundle))
    assert runtime.tally.drain()[1] == {"cache_hits": 2, "cache_misses": 2}
    runtime.use(Runtime.open(bundle, variant="other").ready)  # the same model under another name
    assert runtime.infer(SURE).outcome.kind is OutcomeKind.LOCAL
