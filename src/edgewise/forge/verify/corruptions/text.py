"""What people do to text: typos and case; and to tokens where only those are at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.verify.corruptions.constants import SEVERITIES

TYPOS = (0.01, 0.03, 0.06, 0.1, 0.15)
"""Share of letters with a typo: two swapped, one dropped, doubled, or a neighbour on the keyboard (Belinkov and
Bisk, ICLR 2018, section 4.2)."""
CASES = ("lower", "Title", "half of the words UPPER", "rANdoM", "UPPER")
REPLACED = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Share of tokens replaced by others of the data."""
TEXT: dict[str, tuple[int, ...]] = {"typos": SEVERITIES, "case": SEVERITIES}
TOKENS: dict[str, tuple[int, ...]] = {"token_replaced": SEVERITIES}

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def corrupt_text(text: str, name: str, severity: int, *, generator: np.random.Generator) -> str:
    """Return a sentence under one condition, never empty where it was not."""
    if name == "typos":
        return typos(text, TYPOS[severity - 1], generator=generator) or text
    return _cased(text, CASES[severity - 1], generator=generator)


def typos(text: str, share: float, *, generator: np.random.Generator) -> str:
    """Hit each letter with probability `share` by one of four typos."""
    letters, at = [], 0
    while at < len(text):
        letter = text[at]
        kind = int(generator.integers(4)) if letter.isalpha() and generator.random() < share else -1
        if kind == 0 and at + 1 < len(text):
            letters += [text[at + 1], letter]
            at += 2
            continue
        letters.append({1: "", 2: letter * 2, 3: _neighbour(letter, generator)}.get(kind, letter))
        at += 1
    return "".join(letters)


def replace_tokens(
    ids: NDArray[np.int64], share: float, pool: NDArray[np.int64], *, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Replace a share of the tokens `[t]` by tokens of `pool`; the first and the last one stay."""
    hit = generator.random(ids.size) < share
    hit[[0, -1]] = False
    return np.where(hit, generator.choice(pool, size=ids.size), ids)


def _neighbour(letter: str, generator: np.random.Generator) -> str:
    for row in _ROWS:
        at = row.find(letter.lower())
        if at >= 0:
            near = row[max(at - 1, 0) : at] + row[at + 1 : at + 2]
            found = near[int(generator.integers(len(near)))]
            return found.upper() if letter.isupper() else found
    return letter


def _cased(text: str, case: str, *, generator: np.random.Generator) -> str:
    match case:
        case "lower":
            return text.lower()
        case "Title":
            return text.title()
        case "UPPER":
            return text.upper()
        case "rANdoM":
            return "".join(each.upper() if generator.random() < 0.5 else each.lower() for each in text)
    words = text.split(" ")
    return " ".join(word.upper() if generator.random() < 0.5 else word for word in words)
