"""The process that reads a model: how it may end, what it may use, what it may know."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from edgewise.forge.importing.messages import Question
from edgewise.forge.importing.process import Ended, ask, bare_environment

CRASHES = {
    "segfault": (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "crashed (SIGSEGV)"),
    "abort": ("import os; os.abort()", "crashed (SIGABRT)"),
    "killed": (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", "want of memory"),
    "time": ("import time; time.sleep(60)", "took more than 0.5 s"),
    "silent": ("print('{}')", "ended without an answer"),
    "exit": ("raise SystemExit(4)", "ended with exit code 4"),
    "exception": ("raise IndexError('out of range')", "ended with exit code 1"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_how_a_child_may_end(tmp_path: Path, name: str) -> None:
    code, said = CRASHES[name]
    child = tmp_path / "child.py"
    child.write_text(code if name != "silent" else "pass")
    with pytest.raises(Ended) as caught:
        ask(
            child,
            Question(model="m", folder=str(tmp_path)),
            environment=bare_environment(tmp_path),
            timeout_s=0.5 if name == "time" else 30,
        )
    assert said in caught.value.why
    assert caught.value.raised is (name == "exception")


def test_the_child_is_limited_and_knows_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, resource, sys\n"
        "from edgewise.forge.importing.limits import limit\n"
        "limit(1 << 20)\n"
        "names = ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_FSIZE', 'RLIMIT_CORE')\n"
        "limits = [resource.getrlimit(getattr(resource, name))[0] for name in names]\n"
        "print(json.dumps({'notes': [*map(str, limits), *os.environ]}))\n"
    )
    question = Question(model="m", folder=str(tmp_path))
    answer = ask(child, question, environment=bare_environment(tmp_path), timeout_s=30)
    memory, processor, file, core = map(int, answer.notes[:4])
    assert memory == (8 << 30) + (6 << 20)
    assert 0 < processor <= 600
    assert file == 258 << 20
    assert core == 0
    assert "API_TOKEN" not in answer.notes
    assert sys.platform != "linux" or "PATH" in answer.notes
