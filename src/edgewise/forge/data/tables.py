"""Tables of samples: csv with quotes, tsv without."""

from __future__ import annotations

import csv
from pathlib import Path

from edgewise.errors import DataError

MOST_BYTES = 256 * 1024 * 1024
SUFFIXES = (".csv", ".tsv")

Row = dict[str, str]


def read_table(path: Path, *, needs: tuple[str, ...] = ()) -> list[Row]:
    """Return the rows of a table with a header, by column name; raises DataError.

    A tsv has no quoting: a quotation mark in a sentence is just that.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES} bytes", next_step="split it")
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".tsv":
                reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
            else:
                reader = csv.DictReader(file, strict=True)
            columns = tuple(reader.fieldnames or ())
            missing = [name for name in needs if name not in columns]
            if missing:
                raise DataError(
                    f"{path} has the columns {', '.join(columns) or 'none'}",
                    required=f"a header with {', '.join(needs)}",
                    next_step="name the columns in the first line",
                )
            rows = [_complete(path, reader.line_num, columns, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", required="UTF-8 text", next_step="write it again") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", next_step="check the path") from error
    if not rows:
        raise DataError(f"{path} holds no samples", required="at least one row", next_step="add some")
    return rows


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the column names of a table; raises DataError."""
    return tuple(read_table(path)[0])


def integer(path: Path, index: int, column: str, text: str) -> int:
    """Return a cell as an integer; raises DataError with the row's place."""
    try:
        return int(text)
    except ValueError as error:
        raise DataError(
            f"{path}: {column} of sample {index} is {text!r}",
            required="the number of the class",
            next_step="write class numbers from 0, in the order of the model's outputs",
        ) from error


def _complete(path: Path, line: int, columns: tuple[str, ...], row: dict[str | None, str | list[str] | None]) -> Row:
    found = {str(name): value for name, value in row.items() if name is not None and isinstance(value, str)}
    if len(found) != len(columns) or None in row:
        raise DataError(
            f"{path}, line {line}: not {len(columns)} cells",
            required=", ".join(columns),
            next_step="check the line" + (" (a tsv needs tabs)" if path.suffix == ".tsv" else ""),
        )
    return found
