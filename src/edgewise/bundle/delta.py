"""Deltas between bundles: their format, and the checks that both ends share.

    edgewise delta 1 LF, length of the header (4 bytes, little-endian), header (JSON), payload

The payload is one or two zstd streams (RFC 8878). It is cut into blocks of 128 KiB, each with its SHA-256 in the
header: a download goes on behind the last whole block, and a damaged block is named. A delta is not signed: its
result is, and a result with another digest than the signed one never gets its name.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from enum import StrEnum
from typing import BinaryIO

import msgspec

from edgewise.bundle.archive import MOST_ARCHIVE_BYTES
from edgewise.contracts.base import Value
from edgewise.errors import BundleError, DigestError

MAGIC = b"edgewise delta 1\n"
BLOCK_BYTES = 128 << 10
MOST_HEADER_BYTES = 32 << 20
MOST_SEGMENTS = 1 << 18
MOST_DICTIONARY_BYTES = 64 << 20
"""Of the old bundle that is held in memory to decompress against."""
MOST_WINDOW_BYTES = 128 << 20
LITERAL = -1
WIDTHS = (1, 2, 4, 8)
Buffer = bytes | mmap.mmap
_LENGTH = struct.Struct("<I")


class Method(StrEnum):
    """How a delta says what is new."""

    PATCH = "patch"
    """One zstd stream with the whole old bundle as its dictionary (as `zstd --patch-from`)."""
    TENSORS = "tensors"
    """A stream of modulo differences of tensors, and one of everything else with what is left of the old bundle
    as its dictionary."""


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The next `length` bytes of the new bundle: literal, or differences to `source` in the old one.

    Differences are of unsigned little-endian numbers of `width` bytes, modulo 2**(8 width).
    """

    length: int
    source: int = LITERAL
    width: int = 1


class Header(Value, kw_only=True):
    """What a delta goes from and to. `streams` are lengths of the payload's streams in bytes."""

    method: Method
    old_digest: str
    old_size: int
    new_digest: str
    new_size: int
    streams: tuple[int, ...]
    segments: tuple[Segment, ...] = ()
    blocks: tuple[str, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes behind the header."""
        return sum(self.streams)


def pack(header: Header) -> bytes:
    """Return everything in front of the payload."""
    encoded = msgspec.json.encode(header)
    return MAGIC + _LENGTH.pack(len(encoded)) + encoded


def block_digests(payload: bytes) -> tuple[str, ...]:
    """Return the SHA-256 (hex) of each block."""
    return tuple(
        hashlib.sha256(payload[at : at + BLOCK_BYTES]).hexdigest() for at in range(0, len(payload), BLOCK_BYTES)
    )


def read_header(file: BinaryIO) -> Header:
    """Read a delta up to its payload; raises BundleError unless the header is whole and within its limits."""
    start = file.read(len(MAGIC) + _LENGTH.size)
    if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
        raise _refused("it does not begin like a delta")
    (length,) = _LENGTH.unpack(start[len(MAGIC) :])
    if length > MOST_HEADER_BYTES:
        raise _refused(f"a header of {length} bytes")
    encoded = file.read(length)
    if len(encoded) != length:
        raise _refused("its header is cut off")
    try:
        header = msgspec.json.decode(encoded, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refused(f"its header cannot be read: {error}") from error
    _check(header)
    return header


def _check(header: Header) -> None:
    sizes = (header.old_size, header.new_size, *header.streams)
    if min(sizes) < 0 or max(sizes) > MOST_ARCHIVE_BYTES:
        raise _refused("a size outside its limits")
    if len(header.streams) != (1 if header.method is Method.PATCH else 2):
        raise _refused(f"{len(header.streams)} streams")
    if len(header.blocks) != -(-header.payload_bytes // BLOCK_BYTES):
        raise _refused(f"{len(header.blocks)} digests for {header.payload_bytes} bytes")
    if len(header.segments) > MOST_SEGMENTS or (header.method is Method.PATCH and header.segments):
        raise _refused(f"{len(header.segments)} segments")
    if header.method is Method.TENSORS and sum(each.length for each in header.segments) != header.new_size:
        raise _refused("segments that do not make the new bundle")
    for each in header.segments:
        is_literal = each.source == LITERAL and each.width == 1
        inside = 0 <= each.source <= header.old_size - each.length and each.width in WIDTHS
        if each.length <= 0 or each.length % each.width or not (is_literal or inside):
            raise _refused(f"a segment of {each.length} bytes from {each.source}")
    if header.method is Method.PATCH and header.old_size > MOST_DICTIONARY_BYTES:
        raise _refused(f"a dictionary of {header.old_size} bytes")


def check_payload(file: BinaryIO, header: Header) -> None:
    """Check every block from here to the end and go back here.

    Raises DigestError that names a damaged block, BundleError for data behind the last.
    """
    start = file.tell()
    for number, expected in enumerate(header.blocks):
        if hashlib.sha256(file.read(BLOCK_BYTES)).hexdigest() != expected:
            raise DigestError(
                f"block {number} of the delta is not what its header says",
                required=f"blocks of {BLOCK_BYTES} bytes with the SHA-256 of the header",
                next_step=f"get the delta again from byte {start + number * BLOCK_BYTES}, or the whole bundle",
            )
    if file.tell() - start != header.payload_bytes or file.read(1):
        raise _refused("data behind its last block")
    file.seek(start)


def gaps(segments: tuple[Segment, ...], size: int) -> list[tuple[int, int]]:
    """Return the parts (start, end) of the old bundle that no segment is a difference to, ascending."""
    found = []
    at = 0
    for start, end in sorted((each.source, each.source + each.length) for each in segments if each.source != LITERAL):
        if start > at:
            found.append((at, start))
        at = max(at, end)
    if at < size:
        found.append((at, size))
    return found


def left_over(old: Buffer, segments: tuple[Segment, ...]) -> bytes:
    """Return the dictionary of the literal stream: what no difference is to, up to MOST_DICTIONARY_BYTES."""
    rest = bytearray()
    for start, end in gaps(segments, len(old)):
        rest += old[start : min(end, start + MOST_DICTIONARY_BYTES - len(rest))]
        if len(rest) >= MOST_DICTIONARY_BYTES:
            break
    return bytes(rest)


def _refused(what: str) -> BundleError:
    return BundleError(
        f"the delta is refused: {what}",
        required="a delta of format version 1",
        next_step="get it again, or the whole bundle",
    )
