"""Import a model: from a path that the user wrote down to a checked, normalised ONNX file.

Files are parsed, checked and normalised in a child process under limits (`child`, `limits`), for the
parsers of ONNX are C++ and the files come from anywhere. A torch module is the user's own code: it is
exported in another child (`torch_child`), which keeps a crash away but sets no limits.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgewise.errors import HostileModelError, ModelError, OutputError
from edgewise.forge.importing import child
from edgewise.forge.importing.limits import WALL_S
from edgewise.forge.importing.locate import Module, locate
from edgewise.forge.importing.messages import Answer, Question
from edgewise.forge.importing.process import Ended, ask, bare_environment
from edgewise.forge.importing.torch_module import export

_CHILD = Path(__file__).with_name("child.py")


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was read, checked and normalised."""

    original: Path
    """The user's own model as one plain ONNX file: theirs where it is one."""
    normalised: Path
    digest: str
    """SHA-256 over graph and weights."""
    notes: tuple[str, ...] = ()
    """What was changed on the way, for the user to read."""


def import_model(path: str, *, base: Path, inputs: dict[str, tuple[int, ...]], work: Path) -> Imported:
    """Import an ONNX file, or `package.module:function` that returns a torch module.

    `base` is the folder that `path` is relative to. `inputs` gives shapes by input name: of all inputs
    for a torch module, of dynamic axes to be made static for an ONNX file (0 leaves an axis as it is).
    The files of the result stand in `work`, whole or not at all. Raises ModelError, its subclass
    HostileModelError, MissingExtraError without torch, or OutputError where `work` cannot be written.
    """
    located = locate(path, base=base)
    with _scratch(work) as folder:
        if isinstance(located, Module):
            file, notes = export(located, base=base, inputs=inputs, folder=folder)
            shapes: dict[str, tuple[int, ...]] = {}
        else:
            file, notes, shapes = located, (), inputs
        answer = _read(Question(model=str(file), inputs=shapes, folder=str(folder)))
        # Both stand in full in a folder of the same disk, so that each arrives whole or not at all.
        written = {name: folder / name for name in (child.ORIGINAL, child.NORMALISED) if (folder / name).exists()}
        moved = {name: each.replace(work / name) for name, each in written.items()}
    return Imported(
        original=moved.get(child.ORIGINAL, file),
        normalised=moved[child.NORMALISED],
        digest=answer.digest,
        notes=(*notes, *answer.notes),
    )


def check_variant(file: Path, *, work: Path) -> Path:
    """Check a variant as a model is checked before import; return it as one plain file, its own where it is one.

    It comes from anywhere, like a model. Raises ModelError, its subclass HostileModelError, or OutputError
    where `work` cannot be written.
    """
    with _scratch(work) as folder:
        answer = _read(Question(model=str(file.absolute()), folder=str(folder), is_variant=True))
        return (folder / child.ORIGINAL).replace(work / "variant.onnx") if answer.rewritten else file.absolute()


def _read(question: Question) -> Answer:
    """Have the child read a file. How it died is what the user hears, where it does not answer."""
    name = Path(question.model).name
    try:
        return ask(_CHILD, question, environment=bare_environment(Path(question.folder)), timeout_s=WALL_S)
    except Ended as error:
        if error.raised:
            raise ModelError(
                f"{name}: it cannot be imported: {error.said}",
                required="a model that onnx.checker and ONNX Runtime accept, in a form that edgewise knows",
                next_step="check it with both; where they accept it, please report this message with the model",
            ) from error
        raise HostileModelError(
            f"{name}: reading it {error.why}" + (f": {error.said}" if error.said else ""),
            required="a file that can be parsed, checked and run within limits of memory and time",
            next_step="do not use this file; export the model again, or check it with onnx.checker in a container",
        ) from error


@contextlib.contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """Yield an empty folder in `work`, which is gone afterwards, as is `work` where it is left empty."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".import-", dir=work))
    except OSError as error:
        raise OutputError(
            f"{work}: {error.strerror}", required="a folder that can be written", next_step="choose another --output"
        ) from error
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds what was imported
            work.rmdir()
