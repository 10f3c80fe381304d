"""A model file is imported once for all unit tests: its import is a process that starts anew and finds the same."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edgewise.forge.importing import sandbox
from edgewise.forge.importing.messages import NORMALISED, Answer, Question

READING = sandbox._reading
"""What starts a process; `importing` and the faults look at that itself."""


class Remembered:
    """Answers a question about a file that was answered before as it was then; refusals are found anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[str, Answer] = {}

    @contextlib.contextmanager
    def reading(self, question: Question) -> Iterator[Callable[[], Answer]]:
        key = _key(question)
        into = Path(question.folder)
        if key in self._answers:
            if not question.is_variant:
                shutil.copyfile(self._folder / key, into / NORMALISED)
            yield lambda: self._answers[key]
            return
        with READING(question) as answer:

            def first() -> Answer:
                found = answer()
                if key and not found.rewritten:  # else it may have been read from several files
                    if not question.is_variant:
                        shutil.copyfile(into / NORMALISED, self._folder / key)
                    self._answers[key] = found
                return found

            yield first


def _key(question: Question) -> str:
    """Return what the answer depends on; nothing where there is no file."""
    path = Path(question.model)
    if not path.is_file():
        return ""
    asked = msgspec.json.encode((path.name, question.inputs, question.is_variant), order="deterministic")
    return hashlib.sha256(asked + b"\0" + path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Remembered:
    return Remembered(tmp_path_factory.mktemp("imported"))


@pytest.fixture(autouse=True)
def imported_once(remembered: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_reading", remembered.reading)
