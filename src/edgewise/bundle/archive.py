"""The archive: a ZIP file in one canonical form, stored and aligned; any other form is refused.

A list of (path, size, CRC-32) gives every byte that is not a file's own. A reader therefore takes that list
from the central directory, writes all headers anew and compares: gaps, overlaps, duplicates, links,
compression, comments, trailing data and any other freedom of ZIP end as one refusal. Fields are those of
PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16; the padding is Android zipalign's extra field.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import BinaryIO

import msgspec

from edgewise.bundle.names import MOST_CHARACTERS, MOST_FILES, check_names
from edgewise.bundle.seal import MOST_BYTES, Seal, parse_seal
from edgewise.errors import BundleError, UnsafePathError

ALIGNMENT = 64
"""Every file begins at a multiple of so many bytes: the widest vectors of a processor, and a cache line."""
MOST_ARCHIVE_BYTES = 0xFFFF_FFFE
"""ZIP without its 64-bit extension; a graph and its weights cannot be larger in protobuf anyway."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_NEEDED = 10
_MADE_BY = 3 << 8 | _NEEDED  # Unix, so that the mode below is understood
_MODE = 0o100644 << 16
_DATE = 1 << 5 | 1  # 1980-01-01, the earliest: a bundle has no time of its own
_PADDING_ID = 0xD935
_PADDING = struct.Struct("<3H")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file in an archive: where its header begins, and where its own `size` bytes do."""

    name: str
    size: int
    crc32: int
    header_offset: int
    offset: int


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything is. `signed_bytes` is the length of what the seal is about."""

    entries: tuple[Entry, ...]
    seal: Seal
    signed_bytes: int


def place(files: Iterable[tuple[str, int, int]]) -> tuple[Entry, ...]:
    """Return the entries of files given as (path, size, CRC-32), one behind the other.

    Raises BundleError where they do not fit a bundle.
    """
    entries = []
    at = 0
    for name, size, crc32 in files:
        bare = at + _LOCAL.size + len(name) + _PADDING.size
        offset = bare + -bare % ALIGNMENT
        entries.append(Entry(name=name, size=size, crc32=crc32, header_offset=at, offset=offset))
        at = offset + size
    check_names([each.name for each in entries])
    if at + sum(_CENTRAL.size + len(each.name) for each in entries) + _END.size + MOST_BYTES > MOST_ARCHIVE_BYTES:
        raise BundleError(f"the bundle holds {at} bytes", required=f"at most {MOST_ARCHIVE_BYTES} with its directory")
    return tuple(entries)


def local_header(entry: Entry) -> bytes:
    """Return the header in front of a file, padded so that the file begins at its offset."""
    name = entry.name.encode("ascii")
    zeros = entry.offset - entry.header_offset - _LOCAL.size - len(name) - _PADDING.size
    extra = _PADDING.pack(_PADDING_ID, 2 + zeros, ALIGNMENT) + bytes(zeros)
    sizes = (entry.crc32, entry.size, entry.size)
    return _LOCAL.pack(_LOCAL_MAGIC, _NEEDED, 0, 0, 0, _DATE, *sizes, len(name), len(extra)) + name + extra


def directory(entries: tuple[Entry, ...], *, comment_bytes: int) -> bytes:
    """Return all that stands between the last file and the seal."""
    records = b"".join(map(_record, entries))
    start = entries[-1].offset + entries[-1].size
    count = len(entries)
    return records + _END.pack(_END_MAGIC, 0, 0, count, count, len(records), start, comment_bytes)


def _record(entry: Entry) -> bytes:
    name = entry.name.encode("ascii")
    sizes = (entry.crc32, entry.size, entry.size)
    fixed = _CENTRAL.pack(
        *(_CENTRAL_MAGIC, _MADE_BY, _NEEDED, 0, 0, 0, _DATE, *sizes, len(name)),
        *(0, 0, 0, 0, _MODE, entry.header_offset),
    )
    return fixed + name


def read_index(file: BinaryIO) -> Index:
    """Return where everything is in a file; raises BundleError unless it has the one canonical form.

    Reads the seal, the directory and the headers, never a file's own bytes, and never more than their limits.
    """
    size = file.seek(0, os.SEEK_END)
    if size > MOST_ARCHIVE_BYTES:
        raise BundleError(f"the file has {size} bytes", required=f"at most {MOST_ARCHIVE_BYTES}")
    seal = parse_seal(_read(file, max(0, size - MOST_BYTES), min(size, MOST_BYTES)))
    signed = size - len(seal.encode())
    if signed < _END.size:
        raise _not_canonical("it ends before its directory")
    fields = _END.unpack(_read(file, signed - _END.size, _END.size))
    magic, count, length, start = fields[0], fields[4], fields[5], fields[6]
    if magic != _END_MAGIC or not 1 <= count <= MOST_FILES or length > count * (_CENTRAL.size + MOST_CHARACTERS):
        raise _not_canonical("its directory has no end record")
    if start + length + _END.size != signed:
        raise _not_canonical("its directory is not where its end record says")
    found = _read(file, start, signed - start)
    entries = place(_files(found, count))
    if directory(entries, comment_bytes=size - signed) != found:
        raise _not_canonical("its directory says more, or something else, than paths, sizes and checksums")
    for each in entries:
        header = local_header(each)
        if _read(file, each.header_offset, len(header)) != header:
            raise _not_canonical(f"the header of {each.name!r} is not the one its directory asks for")
    return Index(entries=entries, seal=seal, signed_bytes=signed)


def _files(found: bytes, count: int) -> Iterable[tuple[str, int, int]]:
    at = 0
    for _ in range(count):
        fields = _CENTRAL.unpack(_slice(found, at, _CENTRAL.size))
        name = _slice(found, at + _CENTRAL.size, fields[10])
        if not name.isascii():
            raise _not_canonical("a path is not ASCII")
        if stat.S_ISLNK(fields[15] >> 16):
            raise UnsafePathError(
                f"the bundle holds a link, {name.decode('ascii')[:MOST_CHARACTERS]!r}",
                required="files only",
                next_step="do not use this file",
            )
        yield name.decode("ascii"), fields[9], fields[7]
        at += _CENTRAL.size + len(name)


def _slice(data: bytes, start: int, length: int) -> bytes:
    if start + length > len(data):
        raise _not_canonical("its directory is cut off")
    return data[start : start + length]


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise _not_canonical("it ends early")
    return data


def _not_canonical(what: str) -> BundleError:
    return BundleError(
        f"the file is not a bundle in canonical form: {what}",
        required="the one form that docs/reference/bundle-format.md describes",
        next_step="do not use this file; seal it again, or get it again",
    )
