"""Write chosen samples as a split: an npz of the chosen rows, or a table of the chosen files or sentences."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from edgewise.errors import DataError, OutputError
from edgewise.forge.cache import write_atomically
from edgewise.forge.data.listing import FILE, LABEL, TEXT, Listing, list_files
from edgewise.forge.data.npz import BOXES
from edgewise.forge.data.rows import Rows, open_npz
from edgewise.forge.data.tables import SUFFIXES, columns_of, read_table

NPZ = ".npz"
Chosen = Sequence[tuple[int, int]]
"""Per sample the number of its source and its place there."""


def check_output(sources: Sequence[Path], output: Path) -> None:
    """Refuse, before the work, a file that these sources cannot be written to. Raises DataError, OutputError."""
    kinds = {_kind(each) for each in sources}
    if len(kinds) > 1:
        raise DataError(
            f"the pools are of different kinds: {', '.join(sorted(kinds))}",
            required="npz files, or tables and folders of files, or tables of text",
            next_step="select from them one by one",
        )
    wanted = (NPZ,) if kinds == {NPZ} else SUFFIXES
    if output.suffix not in wanted:
        raise OutputError(
            f"--output {output}",
            required=f"a file that ends in {' or '.join(wanted)}: what is selected from is of that kind",
            next_step=f"choose for example --output calibrate{wanted[0]}",
        )
    if any(output.resolve() == each.resolve() for each in sources):
        raise OutputError(f"--output {output} is one of the pools", next_step="choose another file")


def write_selection(sources: Sequence[Path], chosen: Chosen, output: Path, *, group: int = 1) -> None:
    """Write the chosen samples in order, whole or not at all. Raises DataError and OutputError.

    `group` consecutive samples are one row of labels or of text (pairs). An npz keeps the stored types; memory
    holds one row at a time.
    """
    match _kind(sources[0]):
        case ".npz":
            _write_npz(sources, chosen, output, group=group)
        case "files":
            _write_files([list_files(each) for each in sources], chosen, output)
        case _:
            tables = [read_table(each) for each in sources]
            _write_table(output, [tables[part][at // group] for part, at in chosen[::group]])


def _kind(path: Path) -> str:
    if path.suffix == NPZ:
        return NPZ
    return "files" if path.is_dir() or FILE in columns_of(path) else "text"


def _write_files(listings: Sequence[Listing], chosen: Chosen, output: Path) -> None:
    folder = output.parent.resolve()
    rows = []
    for part, at in chosen:
        entry = listings[part].entries[at]
        row = {FILE: os.path.relpath(entry.path.resolve(), folder)}
        if entry.target is not None:
            row[LABEL if isinstance(entry.target, int) else TEXT] = str(entry.target)
        rows.append(row)
    _write_table(output, rows)


def _write_table(output: Path, rows: Sequence[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if any(list(row) != columns for row in rows):
        raise DataError("the pools have different columns", required="the same in each", next_step="select one by one")
    if output.suffix == ".tsv":  # written as it is read: without quotes
        text.write("".join("\t".join(cells) + "\n" for cells in (columns, *([*row.values()] for row in rows))))
    else:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *([*row.values()] for row in rows)])
    write_atomically(output, text.getvalue().encode())


def _write_npz(sources: Sequence[Path], chosen: Chosen, output: Path, *, group: int) -> None:
    opened = [open_npz(each) for each in sources]
    arrays = [found for found, _ in opened]
    if any(found.keys() != arrays[0].keys() for found in arrays):
        raise DataError(
            "the pools hold different arrays: " + "; ".join(", ".join(found) for found in arrays),
            required="the same arrays in each",
            next_step="select from them one by one",
        )
    if BOXES in arrays[0]:
        raise DataError(
            f"{sources[0]} holds the array {BOXES!r}",
            required="images and labels: calibration needs no boxes",
            next_step="select from an npz without them",
        )
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name in arrays[0]:
                _write_array(archive, name, [found[name] for found in arrays], chosen, group=group)
        partial.replace(output)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror}",
            required="a folder that can be written, with space left",
            next_step="free some space or choose another --output",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
        for _, scratch in opened:
            if scratch is not None:
                scratch.close()


def _write_array(archive: zipfile.ZipFile, name: str, rows: Sequence[Rows], chosen: Chosen, *, group: int) -> None:
    """Write one array row by row. An array of scores has a row per `group` samples, a scalar serves all."""
    if len({(each.dtype, each.shape[1:], bool(each.shape)) for each in rows}) > 1:
        raise DataError(f"the pools' arrays {name!r} differ in type or shape", next_step="select from them one by one")
    wanted = chosen
    if group > 1 and name == "y":
        wanted = [(part, at // group) for part, at in chosen[::group]]
    shape = (len(wanted), *rows[0].shape[1:]) if rows[0].shape else ()
    # A fixed date, so that the same choice gives the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as stream:
        header = {"descr": npy.dtype_to_descr(np.dtype(rows[0].dtype)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        for part, at in wanted if shape else chosen[:1]:
            stream.write(rows[part].read(at if shape else 0).tobytes())
