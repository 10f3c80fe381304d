"""Tell whether the user wrote down a file or a torch module, and find the file."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import msgspec

from edgewise.errors import ModelError

_MODULE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_EITHER = "an ONNX file, or package.module:function that returns a torch module"


class Module(msgspec.Struct, frozen=True):
    """`package.module:function`."""

    module: str
    function: str

    def __str__(self) -> str:
        """Return it as the user wrote it."""
        return f"{self.module}:{self.function}"


def locate(path: str, *, base: Path) -> Path | Module:
    """Return the absolute path of a file, or a torch module's name. Raises ModelError for neither."""
    file = base / path
    try:
        if file.is_file():
            # Not resolved: external data stand beside the path as it was written, as for any runtime.
            return file.absolute()
        folder = file.is_dir()
    except (OSError, ValueError) as error:  # too long, a null character
        raise ModelError(f"model path {path!r}: {error}", required=_EITHER, next_step="correct [model] path") from error
    if folder:
        raise ModelError(f"{path}: a folder", required=_EITHER, next_step="name the ONNX file in it")
    found = _MODULE.fullmatch(path)
    if found is None:
        raise ModelError(f"{path}: no such file in {base}", required=_EITHER, next_step=_advice(file))
    if found["module"].endswith(".py"):
        module = found["module"].removesuffix(".py")
        raise ModelError(
            f"{path}: a file and a function",
            required=_EITHER,
            next_step=f"write {module}:{found['function']}, which is looked for in {base}",
        )
    return Module(found["module"], found["function"])


def _advice(file: Path) -> str:
    try:
        near = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
    except OSError:
        near = []
    close = difflib.get_close_matches(file.name, near, n=1)
    return f"did you mean {file.with_name(close[0]).name!r}?" if close else "correct [model] path"
