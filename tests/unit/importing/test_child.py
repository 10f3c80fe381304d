from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError, HostileModelError, ModelError, OutputError
from edgewise.forge.importing import child
from edgewise.forge.importing.messages import Question
from tests.unit.importing.models import conv_model


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> EdgewiseError:
    """Return what the child answers where normalising ends with `error`, without limiting this process."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(child, "limit", lambda _: None)
    monkeypatch.setattr(child, "normalise", fail)
    path = folder / "model.onnx"
    path.write_bytes(conv_model().SerializeToString())
    answer = child.answer(Question(model=str(path), folder=str(folder)))
    assert answer.refusal is not None
    return answer.refusal.error()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_no_room_is_no_fault_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    error = refusal(tmp_path, monkeypatch, OSError(number, os.strerror(number)))
    assert isinstance(error, OutputError)
    assert os.strerror(number) in error.found
    assert "--output" in error.next_step


def test_a_file_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(tmp_path, monkeypatch, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert type(error) is ModelError
    assert error.found == "model.onnx: No such file or directory"


def test_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(tmp_path, monkeypatch, MemoryError())
    assert isinstance(error, HostileModelError)
    assert "model.onnx: importing it needs more than" in error.found


def test_a_refusal_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(tmp_path, monkeypatch, ModelError("found", required="required", next_step="next"))
    assert type(error) is ModelError
    assert str(error) == "found\nrequired: required\nnext: next"
