"""The process that reads, checks and normalises a model file: a Question on stdin, an Answer on stdout.

It is started by its path, with nothing of the parent's environment but what Python needs, and
imports nothing of the workshop but what it uses, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import errno
from pathlib import Path

from edgewise.errors import EdgewiseError, ExecutionError, HostileModelError, ModelError, OutputError
from edgewise.forge.cache import digest
from edgewise.forge.importing.checks import read_checked
from edgewise.forge.importing.external import load_external
from edgewise.forge.importing.limits import GIB, limit, memory_limit
from edgewise.forge.importing.messages import NORMALISED, ORIGINAL, Answer, Question, Refusal, serve
from edgewise.forge.importing.naming import part_names
from edgewise.forge.importing.normalise import normalise
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def answer(question: Question) -> Answer:
    """Do the work; every file goes to the question's folder."""
    path = Path(question.model)
    folder = Path(question.folder)
    try:
        limit(path.stat().st_size)
        model, external = read_checked(path, is_variant=question.is_variant)
        if external:
            limit(path.stat().st_size + external)
            load_external(model, path.parent)
        rewritten = part_names(model) or bool(external)
        whole = model.SerializeToString(deterministic=True)
        if rewritten:
            (folder / ORIGINAL).write_bytes(whole)
        before = digest(whole)
        del whole  # all weights once over
        if question.is_variant:
            _load(folder / ORIGINAL if rewritten else path, path.name)
            return Answer(digest=before, rewritten=rewritten)
        done, notes = normalise(model, original=folder / ORIGINAL if rewritten else path, shapes=question.inputs)
        normal = done.SerializeToString(deterministic=True)
        (folder / NORMALISED).write_bytes(normal)
    except EdgewiseError as error:
        return Answer(refusal=Refusal.of(error))
    except MemoryError:
        return Answer(refusal=Refusal.of(_too_large(path)))
    except OSError as error:
        return Answer(refusal=Refusal.of(_by_system(error, path)))
    return Answer(digest=digest(before, normal), rewritten=rewritten, notes=notes)


def _load(file: Path, name: str) -> None:
    """Have ONNX Runtime load a variant here first, where it may crash."""
    try:
        OnnxRuntime().load(file)
    except ExecutionError as error:
        raise ModelError(
            f"{name}: {error.found}",
            required="a model that ONNX Runtime can load",
            next_step="check it with onnxruntime.InferenceSession",
        ) from error


def _by_system(error: OSError, path: Path) -> EdgewiseError:
    if error.errno in _NO_ROOM:
        return OutputError(
            f"the imported model cannot be written: {error.strerror}",
            required="a folder with room for the model twice over",
            next_step="free some space or choose another --output",
        )
    return ModelError(
        f"{path.name}: {error.strerror or error}",
        required="a file that can be read",
        next_step="check that it is there and may be read",
    )


def _too_large(path: Path) -> HostileModelError:
    return HostileModelError(
        f"{path.name}: importing it needs more than {memory_limit() / GIB:.1f} GiB",
        required="a model that can be held in memory",
        next_step="look for a tensor of an absurd size, for example with `edgewise inspect`",
    )


if __name__ == "__main__":
    serve(answer)
