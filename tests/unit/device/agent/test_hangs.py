from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from edgewise.device.agent import ending
from edgewise.device.agent.ending import IN_A_ROW_S, Hung
from edgewise.device.agent.hangs import TOLD_S, Hangs
from edgewise.device.session import BoundSession
from tests.unit.device.worker.models import counting, number

MOST_S = 120.0


class Session:
    """What of a session is looked at."""

    def __init__(self) -> None:
        self.executing = 0
        self.is_stopped = False


def looked(hangs: Hangs, session: Session, seconds: int) -> str:
    """Look once a second; return what was found first."""
    found = (hangs.look([cast("BoundSession", session)], 1.0) for _ in range(seconds))
    return next((each for each in found if each), "")


def test_an_execution_that_runs_on_after_it_was_told_to_end_hangs() -> None:
    hangs, session = Hangs(MOST_S), Session()
    session.executing = 1
    assert not looked(hangs, session, 60)  # its deadline may be so long
    session.is_stopped = True
    assert not looked(hangs, session, int(TOLD_S) - 1)
    assert "after it was told" in looked(hangs, session, 1)


def test_one_without_a_deadline_hangs_when_it_takes_longer_than_its_trial_might() -> None:
    hangs, session = Hangs(MOST_S), Session()
    session.executing = 1
    assert not looked(hangs, session, int(MOST_S))
    assert "without a deadline" in looked(hangs, session, 1)


def test_another_execution_each_time_is_no_hang() -> None:
    hangs, session = Hangs(MOST_S), Session()
    session.is_stopped = True  # each is cut, at an operator
    for execution in range(1, 300):
        session.executing = execution
        assert not looked(hangs, session, 1)
    session.executing = 0
    assert not looked(hangs, session, 300)


def test_a_session_says_what_it_executes(tmp_path: Path) -> None:
    session = BoundSession(counting(tmp_path / "m.onnx"), threads=1, shapes={}, state=(("state", "total"),))
    seen = []

    class Native:
        def __getattr__(self, name: str) -> object:
            return getattr(native, name)

        def run_with_iobinding(self, *arguments: object) -> None:
            seen.append(session.executing)
            native.run_with_iobinding(*arguments)

    native, session._native = session._native, Native()
    session.run(number(3))
    session.run(number(3))
    assert (seen, session.executing, session.is_stopped) == ([1, 2], 0, False)
    session.stop()
    assert session.is_stopped


@pytest.mark.parametrize(
    ("ends", "in_a_row"),
    [
        ([("a", 30), ("a", 30), ("a", 30)], 3),
        ([("a", 30), ("b", 30)], 1),
        ([("a", 30), ("a", IN_A_ROW_S), ("a", 30)], 2),
    ],
)
def test_hangs_of_one_bundle_in_a_row_are_counted(ends: list[tuple[str, float]], in_a_row: int, tmp_path: Path) -> None:
    taken = None
    for name, lived_s in ends:
        ending.note_hung(tmp_path, Hung(sha256=name, release=name, reason="it hung"), lived_s)
        taken = ending.take_hung(tmp_path)
        assert ending.take_hung(tmp_path) is None  # it is told once
    assert taken is not None
    assert taken.in_a_row == in_a_row
    ending.ended(tmp_path)
    ending.note_hung(tmp_path, Hung(sha256="a", release="a", reason="it hung"), 1.0)
    found = ending.take_hung(tmp_path)
    assert found is not None
    assert found.in_a_row == 1
