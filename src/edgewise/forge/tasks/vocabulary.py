"""From token ids to text, for speech models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from edgewise.errors import TaskError
from edgewise.runtimes.base import require

_BLANKS = ("<pad>", "[PAD]", "<blank>", "<blk>", "<ctc>", "_")
_SPACES = ("|", "▁", "<space>")
MOST_BYTES = 64 * 1024 * 1024


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens by number, or the `tokenizer.json` that joins them."""

    tokens: tuple[str, ...] = ()
    tokenizer: str | None = None
    """Path of a tokenizer.json (extra `text`), where joining tokens is not enough."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; special tokens and unknown numbers are dropped."""
        if self.tokenizer is not None:
            return str(load_tokenizer(self.tokenizer).decode(list(ids), skip_special_tokens=True))
        parts = []
        for each in ids:
            token = self.tokens[each] if 0 <= each < len(self.tokens) else ""
            special = len(token) > 2 and (token[0], token[-1]) in (("<", ">"), ("[", "]"))
            if token in _SPACES or not special:
                parts.append(" " if token in _SPACES else token.replace("▁", " "))
        return " ".join("".join(parts).split())

    def blank(self, width: int) -> int:
        """Return CTC's blank of `width` outputs: behind the last token, a token named so, or 0."""
        if self.tokens and width == len(self.tokens) + 1:
            return width - 1
        return next((self.tokens.index(name) for name in _BLANKS if name in self.tokens), 0)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a tokenizer.json, a vocab.json (token to number) or a text file with one token a line.

    Raises TaskError where it is none of them.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TaskError(f"{path} is larger than {MOST_BYTES} bytes", required="a vocabulary", next_step="check it")
        content = path.read_bytes()
        if path.suffix != ".json":
            return Vocabulary(tokens=tuple(content.decode().splitlines()))
        found: Any = msgspec.json.decode(content)
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or error}", next_step="check [task.text] tokenizer") from error
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}", required="a vocabulary", next_step="check it") from error
    if isinstance(found, dict) and "model" in found:
        load_tokenizer(str(path))
        return Vocabulary(tokenizer=str(path))
    if isinstance(found, dict) and found and all(type(number) is int for number in found.values()):
        tokens = [""] * (max(found.values()) + 1) if max(found.values()) < MOST_BYTES else []
        for token, number in found.items():
            if not 0 <= number < len(tokens):
                raise TaskError(
                    f"{path}: token {token!r} has number {number}", required="0 or more", next_step="fix it"
                )
            tokens[number] = token
        return Vocabulary(tokens=tuple(tokens))
    raise TaskError(
        f"{path} is no vocabulary",
        required="a tokenizer.json, a vocab.json of token to number, or a text file with one token a line",
        next_step="use the file that came with the model",
    )


@lru_cache(maxsize=4)
def load_tokenizer(path: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a tokenizer.json (extra `text`); raises TaskError where it is none.

    Many files say to pad to 128 tokens. That is switched off, and cutting too: callers want real lengths.
    """
    library = require("tokenizers", extra="text")
    try:
        tokenizer = library.Tokenizer.from_file(path)
    except Exception as error:  # the library raises bare Exception for every cause
        raise TaskError(
            f"{path} is not a tokenizer.json: {error}",
            required="the tokenizer.json that came with the model",
            next_step="check [task.text] tokenizer",
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
