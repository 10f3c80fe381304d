"""Apply a delta on a device: bounded memory, bounded output, and a result that must have the signed digest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
import zstandard

from edgewise.bundle.delta import (
    BLOCK_BYTES,
    LITERAL,
    MOST_WINDOW_BYTES,
    Buffer,
    Header,
    Method,
    Segment,
    check_payload,
    left_over,
    read_header,
)
from edgewise.bundle.replacing import replacing
from edgewise.errors import BundleError, DigestError


def apply_delta(old: Path, delta: Path, output: Path, *, digest: str) -> None:
    """Write the new bundle, whose SHA-256 (hex) must be `digest`: the signed one, not the delta's own word.

    Holds at most the old bundle's left-over (64 MiB) and zstd's window (128 MiB) in memory. Raises BundleError for a
    delta that is malformed or goes from another bundle, DigestError for damage; `output` is then as it was.
    """
    with contextlib.ExitStack() as stack:
        before, file = stack.enter_context(_opened(old)), stack.enter_context(_opened(delta))
        mapped: Buffer = b""
        if before.seek(0, io.SEEK_END):  # an empty file cannot be mapped
            mapped = stack.enter_context(mmap.mmap(before.fileno(), 0, access=mmap.ACCESS_READ))
        apply(mapped, file, stack.enter_context(replacing(output)).write, digest=digest)


def apply(old: Buffer, delta: BinaryIO, write: Callable[[bytes], object], *, digest: str) -> None:
    """Apply an open delta to an old bundle in memory or in a memory map; see `apply_delta`."""
    header = read_header(delta)
    if header.new_digest != digest:
        raise DigestError(
            f"the delta makes a bundle with the SHA-256 {header.new_digest}",
            required=f"the signed one, {digest}",
            next_step="get the delta again, or the whole bundle",
        )
    if len(old) != header.old_size or hashlib.sha256(old).hexdigest() != header.old_digest:
        raise DigestError(
            "the delta goes from another bundle than the one that is here",
            required=f"the bundle with the SHA-256 {header.old_digest}",
            next_step="get the delta for the bundle that is here, or the whole new one",
        )
    check_payload(delta, header)
    state = hashlib.sha256()
    for chunk in _made(old, delta, header):
        state.update(chunk)
        write(chunk)
    if state.hexdigest() != digest:
        raise DigestError(
            f"the delta made a bundle with the SHA-256 {state.hexdigest()}",
            required=f"the signed one, {digest}",
            next_step="get the whole bundle",
        )


def _made(old: Buffer, delta: BinaryIO, header: Header) -> Iterator[bytes]:
    """Yield the new bundle, a block at a time."""
    streams = []
    at = delta.tell()
    for length in header.streams:
        streams.append(_Part(delta, at, length))
        at += length
    if header.method is Method.PATCH:
        literals = _Stream(streams[0], dictionary=old[:])
        yield from literals.blocks(header.new_size)
        literals.end()
        return
    changes = _Stream(streams[0], dictionary=b"")
    literals = _Stream(streams[1], dictionary=left_over(old, header.segments))
    for each in header.segments:
        if each.source == LITERAL:
            yield from literals.blocks(each.length)
        else:
            yield from _added(old, changes, each)
    changes.end()
    literals.end()


def _added(old: Buffer, changes: _Stream, segment: Segment) -> Iterator[bytes]:
    """Yield old plus differences of a segment; see `delta_make.differences` for their order."""
    at = segment.source
    width = segment.width
    for block in changes.blocks(segment.length):
        planes = np.frombuffer(block, np.uint8).reshape(width, -1)
        change = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{width}")
        before = np.frombuffer(old[at : at + len(block)], f"<u{width}")
        yield (before + change).tobytes()
        at += len(block)


class _Part(io.RawIOBase):
    """A part of a file, read from where it was left although others read the file too."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self._file = file
        self._at = start
        self._end = start + length

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        left = self._end - self._at
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


class _Stream:
    """A zstd frame that is read as far as it is needed, and must end there."""

    def __init__(self, part: _Part, *, dictionary: bytes) -> None:
        raw = (
            zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
        )
        decompressor = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=MOST_WINDOW_BYTES)
        self._part = part
        self._reader = decompressor.stream_reader(cast("IO[bytes]", part), read_across_frames=False)

    def blocks(self, length: int) -> Iterator[bytes]:
        """Yield exactly so many bytes, in blocks of BLOCK_BYTES but for the last."""
        for start in range(0, length, BLOCK_BYTES):
            yield self._exactly(min(BLOCK_BYTES, length - start))

    def end(self) -> None:
        """Raise BundleError unless there is nothing left."""
        if self._read(1) or self._part.read(1):
            raise _refused("it holds more than its header says")

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            part = self._read(size - len(found))
            if not part:
                raise _refused("it holds less than its header says")
            found += part
        return bytes(found)

    def _read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise _refused(f"it cannot be decompressed: {error}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}", required="a file that can be read") from error


def _refused(what: str) -> BundleError:
    return BundleError(f"the delta is refused: {what}", next_step="get it again, or the whole bundle")
