"""A crash or a full disk at any moment of a write leaves the old file or the new one, whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgewise.errors import OutputError
from edgewise.forge.cache import Cache, digest, write_atomically

OLD, NEW = b"old " * 1000, b"new " * 3000


class Killed(BaseException):
    """Stands for SIGKILL: no handler for errors sees it."""


def failing(real: Callable[..., Any], *, error: BaseException, share: float | None) -> Callable[..., Any]:
    """Return `real` so that it fails: before anything, or (write_bytes) with a share of the bytes written."""

    def fail(self: Path, *arguments: Any, **_: Any) -> Any:
        if share is not None:
            real(self, arguments[0][: int(len(arguments[0]) * share)])
        raise error

    return fail


MOMENTS = [
    ("mkdir", None),
    ("write_bytes", None),
    ("write_bytes", 0.0),
    ("write_bytes", 0.5),
    ("write_bytes", 1.0),
    ("replace", None),
]


@pytest.mark.parametrize(("step", "share"), MOMENTS)
@pytest.mark.parametrize("before", [OLD, None], ids=["old", "none"])
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left on device")], ids=["kill", "full"])
def test_a_failed_write_leaves_what_was_there(
    step: str,
    share: float | None,
    before: bytes | None,
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "evidence.json"
    if before is not None:
        path.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(Path, step, failing(getattr(Path, step), error=error, share=share))
        with pytest.raises(Killed if isinstance(error, Killed) else OutputError) as raised:
            write_atomically(path, NEW)
    assert (path.read_bytes() if path.exists() else None) == before
    if isinstance(error, OSError):
        assert "No space left" in str(raised.value)
        assert [each.name for each in tmp_path.iterdir()] == (["evidence.json"] if before else [])
    # What a kill left beside it does not disturb the next run.
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW
    assert [each.name for each in tmp_path.iterdir()] == ["evidence.json"]


def test_a_kill_after_the_rename_leaves_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    real = Path.replace

    def renamed(self: Path, target: Path) -> Path:
        real(self, target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", renamed)
        with pytest.raises(Killed):
            write_atomically(path, NEW)
    assert path.read_bytes() == NEW


class Value(msgspec.Struct):
    number: int


def test_a_torn_or_foreign_entry_is_not_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("key", Value(number=3))
    assert cache.get("key", Value) == Value(number=3)
    assert Cache(tmp_path, fresh=True).get("key", Value) is None
    assert cache.get("other", Value) is None
    whole = (tmp_path / "key.json").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "key.json").write_bytes(whole[:length])
        assert cache.get("key", Value) is None
    for foreign in (b'{"number": "three"}', b"\xff\xfe", b"[]"):
        (tmp_path / "key.json").write_bytes(foreign)
        assert cache.get("key", Value) is None


def test_parts_of_a_key_cannot_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("", "a") != digest("a", "")
    assert digest("a", b"b") == digest(b"a", "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        Cache(tmp_path / "found")
