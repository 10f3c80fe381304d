"""The lab of an agent: a workstation sends models and samples, a limited process measures, figures go back.

Only where agent.toml has a [lab], only with its token, one measurement at a time. What comes in is written below the
agent's folder, held to the limits before and while it is unpacked, and gone when the answer is.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from edgewise.contracts.lab import FEEDS, MOST_MODELS, QUESTION, LabAnswer, LabQuestion
from edgewise.device.agent.settings import MIB, Lab

UPLOAD_S = 600.0
"""A request may take so long to arrive: models are large, and come through a tunnel."""
_CHUNK = 1 << 20
_MOST_QUESTION_BYTES = 1 << 20


class Refused(NamedTuple):
    """An answer other than 200: its status, what was found, what was required."""

    status: int
    found: str
    required: str


class Bench:
    """The lab of one agent."""

    def __init__(self, folder: Path, settings: Lab) -> None:
        """Take the agent's folder; what a measurement left that was cut short is taken away."""
        self._folder, self._settings = folder / "lab", settings
        self._one = threading.Lock()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def most_bytes(self) -> int:
        """Largest request."""
        return self._settings.request_mib * MIB

    def admits(self, authorization: str) -> bool:
        """Return whether a request carries the token."""
        kind, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        return kind.lower() == "bearer" and hmac.compare_digest(digest, self._settings.token_sha256)

    def measure(self, body: io.BufferedIOBase, length: int) -> bytes | Refused:
        """Read a request of this length and return the answer's JSON, or why there is none."""
        if not self._one.acquire(blocking=False):
            return Refused(409, "a measurement is under way", "one at a time")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=self._folder) as name:
                folder = Path(name)
                archive = folder / "request.zip"
                if not _received(body, length, archive):
                    return Refused(400, "the request ended before its body", "the length that its header says")
                refused = self._unpacked(archive, folder)
                archive.unlink()
                return refused or self._measured(folder)
        except OSError as error:
            return Refused(507, f"the request cannot be kept: {error.strerror or error}", "space on the device")
        finally:
            self._one.release()

    def _unpacked(self, archive: Path, folder: Path) -> Refused | None:
        """Unpack what the question names, and nothing else."""
        try:
            with zipfile.ZipFile(archive) as opened:
                entries = {each.filename: each for each in opened.infolist()}
                if len(opened.infolist()) > MOST_MODELS + 2 or not {QUESTION, FEEDS} <= entries.keys():
                    return Refused(400, f"an archive of {len(entries)} files", f"{QUESTION}, {FEEDS} and the models")
                if entries[QUESTION].file_size > _MOST_QUESTION_BYTES:
                    return Refused(400, "a question of more than 1 MiB", "less")
                question = msgspec.json.decode(opened.read(QUESTION), type=LabQuestion)
                wanted = [QUESTION, FEEDS, *(f"{name}.onnx" for name in question.models)]
                if entries.keys() != set(wanted) or sum(each.file_size for each in entries.values()) > self.most_bytes:
                    return Refused(400, "other files than the question names, or too large", ", ".join(wanted)[:300])
                for name in wanted:  # of fixed names, so that none leads elsewhere
                    with opened.open(name) as source, (folder / name).open("wb") as target:
                        _copied(source, target, entries[name].file_size)
        except (
            zipfile.BadZipFile,
            msgspec.DecodeError,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
        ) as error:
            return Refused(400, f"the archive cannot be read: {error}"[:300], "what edgewise optimize --on sends")
        return None

    def _measured(self, folder: Path) -> bytes:
        command = [sys.executable, "-m", "edgewise.device.lab_child", str(folder), str(self._settings.memory_mib)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._settings.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return _problem(f"it took longer than {self._settings.timeout_s:g} s")
        try:
            msgspec.json.decode(done.stdout, type=LabAnswer)
        except msgspec.DecodeError:
            words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            return _problem(f"the process ended with {done.returncode}{': ' if words else ''}{''.join(words)[:300]}")
        return done.stdout


def _problem(words: str) -> bytes:
    return msgspec.json.encode(LabAnswer(problem=words))


def _received(body: io.BufferedIOBase, length: int, path: Path) -> bool:
    left = length
    with path.open("wb") as out:
        while left and (chunk := body.read(min(_CHUNK, left))):
            out.write(chunk)
            left -= len(chunk)
    return left == 0


def _copied(source: IO[bytes], target: IO[bytes], length: int) -> None:
    """Copy as many bytes as the archive's directory promised. Raises ValueError where there are more."""
    left = length
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise ValueError("a file is larger than the archive says")
        target.write(chunk)
