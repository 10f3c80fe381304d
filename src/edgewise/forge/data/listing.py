"""Which files make up a split, and their labels: from a table, from class folders, or a plain folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgewise.errors import DataError
from edgewise.forge.data.tables import integer, read_table

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg")
TABLES = ("labels.csv", "labels.tsv")
FILE, LABEL, TEXT = "file", "label", "text"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file and its target: a class number, a text, or None."""

    path: Path
    target: Any = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a split, all of one kind."""

    entries: tuple[Entry, ...]
    warnings: tuple[str, ...] = ()

    @property
    def are_images(self) -> bool:
        """Whether they are images and not sounds."""
        return self.entries[0].path.suffix.lower() in IMAGES


def list_files(path: Path) -> Listing:
    """Return the files of a table with a column `file`, or of a folder; raises DataError.

    A folder has a `labels.csv` (columns file,label or file,text), or one subfolder per class, or files without
    labels. Classes are the subfolders' names where all are numbers, otherwise their places in sorted order.
    """
    if path.is_file():
        return _same_kind(path, _from_table(path, (path.parent, path.parent / path.stem)), ())
    for name in TABLES:
        if (path / name).is_file():
            return _same_kind(path, _from_table(path / name, (path,)), ())
    try:
        children = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", next_step="check the path") from error
    folders = [each for each in children if each.is_dir()]
    files = [each for each in children if each.is_file()]
    wanted = [each for each in files if each.suffix.lower() in IMAGES + SOUNDS]
    if folders and wanted:
        raise DataError(
            f"{path} holds both files ({wanted[0].name}, ...) and folders ({folders[0].name}, ...)",
            required="files without labels, or one folder per class, or a labels.csv",
            next_step="move the files into their class folders",
        )
    if not folders:
        return _same_kind(path, [Entry(path=each) for each in wanted], _ignored(path, len(files) - len(wanted)))
    return _from_folders(path, folders)


def _from_folders(path: Path, folders: list[Path]) -> Listing:
    names = [each.name for each in folders]
    numbers = [int(name) for name in names] if all(name.isdecimal() for name in names) else list(range(len(names)))
    entries, other = [], 0
    for number, folder in zip(numbers, folders, strict=True):
        for each in sorted(folder.iterdir()):
            if each.suffix.lower() in IMAGES + SOUNDS:
                entries.append(Entry(path=each, target=number))
            else:
                other += 1
    return _same_kind(path, entries, _ignored(path, other))


def _from_table(table: Path, folders: tuple[Path, ...]) -> list[Entry]:
    entries = []
    for index, row in enumerate(read_table(table, needs=(FILE,))):
        places = [folder / row[FILE] for folder in folders]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(
                f"{table} names {row[FILE]!r}, which does not exist",
                required=f"a file in {' or '.join(map(str, folders))}",
                next_step="write paths relative to the table",
            )
        target: Any = row.get(TEXT)
        if LABEL in row:
            target = integer(table, index, LABEL, row[LABEL])
        entries.append(Entry(path=found, target=target))
    return entries


def _same_kind(path: Path, entries: list[Entry], warnings: tuple[str, ...]) -> Listing:
    if not entries:
        raise DataError(
            f"{path} holds no images and no sounds",
            required=f"files that end in {', '.join(IMAGES + SOUNDS)}",
            next_step="check the path, or write an npz with numpy.savez(file, x=..., y=...)",
        )
    images = [entry.path.suffix.lower() in IMAGES for entry in entries]
    other = [entry.path.suffix.lower() not in IMAGES + SOUNDS for entry in entries]
    if any(other) or (any(images) and not all(images)):
        odd = entries[other.index(True)] if any(other) else entries[images.index(False)]
        raise DataError(
            f"{path}: {odd.path.name} is not of the kind of the others",
            required="only images or only sounds",
            next_step="split them",
        )
    return Listing(entries=tuple(entries), warnings=warnings)


def _ignored(path: Path, count: int) -> tuple[str, ...]:
    return (f"{path}: {count} files are neither images nor sounds and were left out",) if count else ()
