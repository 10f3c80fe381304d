from __future__ import annotations

import threading

import pytest

from edgewise.forge.verify.beside import Beside


def test_both_run_at_once_and_each_answer_keeps_its_place() -> None:
    met = threading.Barrier(2, timeout=20)  # neither gets past it alone

    def named(name: str) -> str:
        met.wait()
        return name

    assert Beside().both(lambda: named("one"), lambda: named("other")) == ("one", "other")


def fails() -> int:
    raise ValueError("of its own")


def test_what_either_raises_comes_out_when_both_have_ended() -> None:
    beside, ended = Beside(), threading.Event()
    with pytest.raises(ValueError, match="of its own"):
        beside.both(fails, lambda: 1)
    with pytest.raises(ValueError, match="of its own"):
        beside.both(ended.set, fails)
    assert ended.is_set()
    assert beside.both(lambda: 1, lambda: 2) == (1, 2)
