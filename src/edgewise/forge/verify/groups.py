"""The user's subgroups: which one every test sample belongs to."""

from __future__ import annotations

import csv
from pathlib import Path

from edgewise.errors import DataError

COLUMN = "group"
_MOST_BYTES = 64 << 20
_SUFFIXES = {".csv": ",", ".tsv": "\t"}


def read_groups(path: Path, *, samples: int) -> tuple[str, ...]:
    """Return the subgroup of each of `samples` test samples, in their order.

    A text file has one name a line; a `.csv` or `.tsv` has a header with a column `group`. Raises DataError.
    """
    rows = _column(path) if path.suffix in _SUFFIXES else [line.strip() for line in _text(path).splitlines()]
    if len(rows) != samples:
        raise DataError(
            f"{path} names {len(rows)} subgroups",
            required=f"{samples}, one for each test sample",
            next_step="write one line per sample, in the order of the test split",
        )
    return tuple(each or "(none)" for each in rows)


def _column(path: Path) -> list[str]:
    reader = csv.DictReader(_text(path).splitlines(), delimiter=_SUFFIXES[path.suffix])
    if COLUMN not in (reader.fieldnames or ()):
        raise DataError(
            f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}",
            required=f"a column {COLUMN!r}",
            next_step="name it so in the header",
        )
    return [(row[COLUMN] or "").strip() for row in reader]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has {path.stat().st_size} bytes", required="a list of subgroups, a line each")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}", required="a file with one subgroup a line", next_step="check --groups"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", required="one subgroup a line") from error
