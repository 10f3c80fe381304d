"""What the importing process and its children say to each other: one JSON value each way."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import msgspec

from edgewise import errors
from edgewise.errors import EdgewiseError, WorkerError

ORIGINAL = "original.onnx"
"""The user's own model as one plain file, where a child had to write it."""
NORMALISED = "normalised.onnx"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to import: `folder` exists, is empty, and takes every file that the child writes."""

    model: str
    """Absolute path of an ONNX file, or `package.module:function`."""
    base: str = ""
    """Where the packages of a torch module are looked for first."""
    inputs: dict[str, tuple[int, ...]] = {}
    folder: str
    is_variant: bool = False
    """It may be quantized: it is checked and loaded, and left as it is."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An EdgewiseError on its way through a pipe."""

    kind: str
    found: str
    required: str = ""
    next_step: str = ""

    @classmethod
    def of(cls, error: EdgewiseError) -> Refusal:
        """Take an error apart."""
        return cls(kind=type(error).__name__, found=error.found, required=error.required, next_step=error.next_step)

    def error(self) -> EdgewiseError:
        """Put the error together again; a class that this package does not have becomes WorkerError."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, EdgewiseError)):
            kind = WorkerError
        return kind(self.found, required=self.required, next_step=self.next_step)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a child wrote into the folder, or why it did not."""

    digest: str = ""
    """SHA-256 over graph and weights."""
    rewritten: bool = False
    """The user's model stands as one file in the folder, for its own is not a single one."""
    notes: tuple[str, ...] = ()
    refusal: Refusal | None = None


def serve(answer: Callable[[Question], Answer]) -> None:
    """Answer one question. What libraries print goes to stderr, so that stdout holds the answer alone."""
    reply = os.dup(1)
    os.dup2(2, 1)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    with os.fdopen(reply, "wb") as stream:
        stream.write(msgspec.json.encode(answer(question)))
