"""Import a model: from a path that the user wrote down to a checked, normalised ONNX file.

Files are parsed, checked and normalised in a child process under limits (`child`, `limits`), for the
parsers of ONNX are C++ and the files come from anywhere. A torch module is the user's own code: it is
exported in another child (`torch_child`), which keeps a crash away but sets no limits.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from edgewise.errors import HostileModelError, ModelError, OutputError
from edgewise.forge.importing.limits import WALL_S
from edgewise.forge.importing.locate import Module, locate
from edgewise.forge.importing.messages import NORMALISED, ORIGINAL, Answer, Question
from edgewise.forge.importing.process import Ended, asked, bare_environment

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
    with importing(path, base=base, inputs=inputs, work=work) as imported:
        return imported()


@contextlib.contextmanager
def importing(
    path: str, *, base: Path, inputs: dict[str, tuple[int, ...]], work: Path
) -> Iterator[Callable[[], Imported]]:
    """Begin what `import_model` does; what is yielded waits for the rest. Raises as it does, both at once and then.

    A file is read by a child while the caller goes on.
    """
    located = locate(path, base=base)
    with _scratch(work) as folder:
        if isinstance(located, Module):
            yield partial(_exported, located, base=base, inputs=inputs, folder=folder, work=work)
        else:
            question = Question(model=str(located), inputs=inputs, folder=str(folder))
            with _reading(question) as answer:
                yield partial(_arrived, answer, located, (), folder=folder, work=work)


def _exported(module: Module, *, base: Path, inputs: dict[str, tuple[int, ...]], folder: Path, work: Path) -> Imported:
    from edgewise.forge.importing.torch_module import export  # noqa: PLC0415 - loads what a file does not need

    file, notes = export(module, base=base, inputs=inputs, folder=folder)
    with _reading(Question(model=str(file), folder=str(folder))) as answer:
        return _arrived(answer, file, notes, folder=folder, work=work)


def _arrived(answer: Callable[[], Answer], file: Path, notes: tuple[str, ...], *, folder: Path, work: Path) -> Imported:
    """Wait, then move what was written: it stands in full on the same disk, so that each file arrives whole or not."""
    answered = answer()
    written = {name: folder / name for name in (ORIGINAL, NORMALISED) if (folder / name).exists()}
    moved = {name: each.replace(work / name) for name, each in written.items()}
    return Imported(
        original=moved.get(ORIGINAL, file),
        normalised=moved[NORMALISED],
        digest=answered.digest,
        notes=(*notes, *answered.notes),
    )


def check_variant(file: Path, *, work: Path) -> Path:
    """Check a variant as a model is checked before import; return it as one plain file, its own where it is one.

    It comes from anywhere, like a model. Raises ModelError, its subclass HostileModelError, or OutputError
    where `work` cannot be written.
    """
    with _scratch(work) as folder:
        with _reading(Question(model=str(file.absolute()), folder=str(folder), is_variant=True)) as read:
            answer = read()
        return (folder / ORIGINAL).replace(work / "variant.onnx") if answer.rewritten else file.absolute()


@contextlib.contextmanager
def _reading(question: Question) -> Iterator[Callable[[], Answer]]:
    """Have the child read a file."""
    environment = bare_environment(Path(question.folder))
    with asked(_CHILD, question, environment=environment, timeout_s=WALL_S) as answer:
        yield partial(_read, answer, Path(question.model).name)


def _read(answer: Callable[[], Answer], name: str) -> Answer:
    """Wait for the answer. How the child died is what the user hears, where there is none."""
    try:
        return answer()
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
