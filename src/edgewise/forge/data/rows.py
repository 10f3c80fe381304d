"""Arrays that stay on disk: the members of an npz, read row by row at a byte offset.

A member that is stored as it is can be read in place. A compressed one is unpacked once, in a
stream, into a scratch folder. Plain reads and no memory map, because the resident set counts
every mapped page that was ever touched.
"""

from __future__ import annotations

import math
import shutil
import struct
import zipfile
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.lib import format as npy

from edgewise.errors import DataError
from edgewise.forge.data.scratch import Scratch
from edgewise.forge.tasks.base import Array

CHUNK_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 0x1


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """An array `[rows, ...]` in C order at `offset` bytes of a file."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of rows; of a scalar, 1."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape[1:])

    @property
    def rows_per_chunk(self) -> int:
        """How many rows make about CHUNK_BYTES; at least one."""
        return max(1, CHUNK_BYTES // max(1, self.row_bytes))

    def read(self, start: int, count: int = 1) -> Array:
        """Return rows `[count, ...]` as stored; raises DataError where the file ends early."""
        shape = (count, *self.shape[1:]) if self.shape else ()
        wanted = math.prod(shape)
        try:
            flat = np.fromfile(self.path, np.dtype(self.dtype), wanted, offset=self.offset + start * self.row_bytes)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}", next_step="check the file") from error
        if flat.size != wanted:
            raise DataError(
                f"{self.path} ends before row {start + count - 1}",
                required=f"{self.offset + len(self) * self.row_bytes} bytes",
                next_step="the file is cut off or was changed during the run: write it again",
            )
        return flat.reshape(shape)


def open_npz(path: Path) -> tuple[dict[str, Rows], Scratch | None]:
    """Return the arrays of an npz by name, and the scratch folder of those that were compressed.

    Raises DataError for anything but a readable npz of plain arrays. Nothing is ever unpickled.
    """
    arrays: dict[str, Rows] = {}
    scratch: Scratch | None = None
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    raise DataError(
                        f"{path} holds {name!r}, which is not an array",
                        required="an .npz written by numpy.savez",
                        next_step="write the samples with numpy.savez(file, x=..., y=...)",
                    )
                if member.compress_type != zipfile.ZIP_STORED and scratch is None:
                    scratch = Scratch()
                arrays[name] = _rows_of(path, archive, member, scratch, number=len(arrays))
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path} is not a readable npz: {error}",
            required="an .npz written by numpy.savez",
            next_step="write it again; a download may be cut off",
        ) from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", next_step="check the path") from error
    return arrays, scratch


def _rows_of(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Scratch | None, *, number: int
) -> Rows:
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{path}: array {member.filename!r} is encrypted", next_step="write it without a password")
    with archive.open(member) as stream:
        dtype, shape, header_bytes = _read_header(path, member, stream)
        size = np.dtype(dtype).itemsize * math.prod(shape)
        if member.file_size - header_bytes != size:
            raise DataError(
                f"{path}: array {member.filename!r} has {member.file_size - header_bytes} bytes",
                required=f"{size} bytes for shape {list(shape)} of {dtype}",
                next_step="write the file again",
            )
        if member.compress_type == zipfile.ZIP_STORED or scratch is None:
            return Rows(path=path, offset=_data_offset(path, member) + header_bytes, dtype=dtype, shape=shape)
        unpacked = scratch.folder / f"{number}.bin"
        free = shutil.disk_usage(scratch.folder).free
        if size > free:
            raise DataError(
                f"{path}: array {member.filename!r} takes {size} bytes unpacked, {free} are free",
                next_step="free space, set TMPDIR to a larger disk, or write it with numpy.savez (not compressed)",
            )
        with unpacked.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK_BYTES)
    return Rows(path=unpacked, offset=0, dtype=dtype, shape=shape)


def _read_header(path: Path, member: zipfile.ZipInfo, stream: IO[bytes]) -> tuple[str, tuple[int, ...], int]:
    """Return dtype, shape and header length of a member; refuses what needs pickle or is not row by row."""
    where = f"{path}: array {member.filename.removesuffix('.npy')!r}"
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except ValueError as error:
        raise DataError(
            f"{where} has no readable header: {error}",
            required="plain numeric arrays (npy format 1.0 or 2.0)",
            next_step="write the file again with numpy.savez",
        ) from error
    if dtype.hasobject or dtype.names is not None:
        raise DataError(
            f"{where} holds Python objects" if dtype.hasobject else f"{where} is a structured array",
            required="numbers (files with objects are never unpickled: that would run code from the file)",
            next_step="give every row the same shape and a numeric type, then numpy.savez again",
        )
    if fortran and len(shape) > 1:
        raise DataError(
            f"{where} is stored in Fortran order",
            required="C order, so that rows can be read one by one",
            next_step="write numpy.ascontiguousarray(array) instead",
        )
    return dtype.str, shape, stream.tell()


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes start: behind its local header, which may be longer than the central one."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        fields = _LOCAL_HEADER.unpack(header)
    return member.header_offset + _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])
