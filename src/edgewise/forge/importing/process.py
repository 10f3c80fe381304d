"""Starts a child of the importer, and turns every way in which it can end into an answer or an error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from edgewise.forge.importing.messages import Answer, Question

_SOURCES = Path(__file__).parents[3]
_STDERR = "stderr.txt"
_TAIL_BYTES = 4096

# What an interpreter and its libraries need to start. Nothing else is inherited: no tokens, no keys.
_NEEDED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")
# Worker threads would each reserve address space; a small model is read faster without them.
_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Ended(Exception):  # noqa: N818 - told apart by the caller, who knows what it means for the user
    """A child ended without an answer.

    `why` says how, `said` is the last line it wrote; `raised` where it was an exception of Python.
    """

    def __init__(self, why: str, said: str = "", *, raised: bool = False) -> None:
        """Keep all."""
        self.why = why
        self.said = said
        self.raised = raised
        super().__init__(why, said)


def bare_environment(folder: Path) -> dict[str, str]:
    """Return an environment without the parent's secrets, whose temporary files go to `folder`."""
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return {**kept, **_QUIET, "TMPDIR": str(folder), "HOME": str(folder)}


def ask(child: Path, question: Question, *, environment: Mapping[str, str], timeout_s: float) -> Answer:
    """Start `child`, a Python file, and return its answer; raises what `asked` says."""
    with asked(child, question, environment=environment, timeout_s=timeout_s) as answer:
        return answer()


@contextlib.contextmanager
def asked(
    child: Path, question: Question, *, environment: Mapping[str, str], timeout_s: float
) -> Iterator[Callable[[], Answer]]:
    """Start `child`, a Python file; yield what waits for its answer, at most so long. It is killed if nobody waits.

    What is yielded raises the EdgewiseError that the child refused with, or Ended where it crashed, hung or
    was killed.
    """
    folder = Path(question.folder)
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_SOURCES), *([inherited] if inherited else [])])
    with (
        (folder / _STDERR).open("wb") as errors,
        # -P keeps the folder of the file off the path. A process group of its own: no Ctrl-C of the
        # terminal reaches it, and what it starts ends with it. (A session of its own would also take it out
        # of the parent's share of a busy machine, where Linux groups processes by session.)
        subprocess.Popen(
            [sys.executable, "-P", str(child)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**environment, "PYTHONPATH": path},
            process_group=0,
        ) as process,
    ):
        try:
            _put(process, msgspec.json.encode(question))
            yield partial(_answer, process, folder, timeout_s)
        finally:  # an answer that nobody came for, a Ctrl-C
            if process.poll() is None:
                _kill(process)


def _put(process: subprocess.Popen[bytes], question: bytes) -> None:
    """Hand the question over; a child that is gone already is found out when its answer is asked for."""
    if process.stdin is None:
        raise ValueError
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:
        stream.write(question)
    process.stdin = None  # `communicate` would use it again


def _answer(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> Answer:
    try:
        answered, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise Ended(f"took more than {timeout_s:g} s") from error
    if process.returncode:
        raise Ended(_how(process.returncode), _last_line(folder / _STDERR), raised=process.returncode == 1)
    try:
        answer = msgspec.json.decode(answered, type=Answer)
    except msgspec.DecodeError as error:
        raise Ended("ended without an answer", _last_line(folder / _STDERR)) from error
    if answer.refusal is not None:
        raise answer.refusal.error()
    return answer


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a child and what it started; it is not waited for yet, so the group is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    number = -code
    known = {
        signal.SIGXCPU: "used up its processor time",
        signal.SIGKILL: "was killed, most likely for want of memory",
    }
    if number in known:
        return known[signal.Signals(number)]
    names = {int(each): each.name for each in signal.Signals}
    return f"crashed ({names.get(number, f'signal {number}')})"


def _last_line(path: Path) -> str:
    """Return the last line that says something of what the child wrote to stderr."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
