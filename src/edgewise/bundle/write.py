"""Write a bundle from its files: the same files and the same Ed25519 key give the same bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec
from securesystemslib.signer import Signer

from edgewise.bundle.archive import directory, local_header, place
from edgewise.bundle.names import MANIFEST
from edgewise.bundle.replacing import replacing
from edgewise.bundle.seal import empty_seal, make_seal
from edgewise.contracts.manifest import SealedFile
from edgewise.contracts.pipeline import Sealed
from edgewise.errors import BundleError

CHUNK_BYTES = 1 << 20

Source = bytes | Path


def encode_manifest(manifest: Sealed) -> bytes:
    """Return the one form of a manifest: fields in the order of the contract, keys of dictionaries ascending."""
    return msgspec.json.encode(manifest, order="deterministic")


def chunks_of(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a source, some at a time."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def sealed_file(path: str, source: Source) -> SealedFile:
    """Return the size and digest of a file that shall stand at `path` in a bundle."""
    state = hashlib.sha256()
    size = 0
    for chunk in chunks_of(source):
        state.update(chunk)
        size += len(chunk)
    return SealedFile(path=path, size=size, digest=state.hexdigest())


def write_bundle(path: Path, files: Mapping[str, Source], *, signer: Signer) -> str:
    """Write a sealed bundle of `files`, which hold the manifest; return the SHA-256 of the whole file.

    Raises BundleError where the files do not make a bundle, and OutputError where the disk refuses; then
    nothing is written.
    """
    with replacing(path) as out:
        return write_archive(out, files, signer=signer)


def write_archive(out: BinaryIO, files: Mapping[str, Source], *, signer: Signer) -> str:
    """Write a sealed bundle into an open file, as `write_bundle` does."""
    names = [MANIFEST, *sorted(files.keys() - {MANIFEST})]
    entries = place((name, *_measured(files[name])) for name in names if name in files)
    state = hashlib.sha256()
    for entry in entries:
        _write(out, state.update, local_header(entry))
        written = 0
        for chunk in chunks_of(files[entry.name]):
            _write(out, state.update, chunk)
            written += len(chunk)
        if written != entry.size:
            raise BundleError(f"{entry.name} was changed while it was sealed", next_step="seal again")
    _write(out, state.update, directory(entries, comment_bytes=len(empty_seal(signer.public_key).encode())))
    _write(out, state.update, make_seal(signer, state.digest()).encode())
    return state.hexdigest()


def _measured(source: Source) -> tuple[int, int]:
    size = crc = 0
    for chunk in chunks_of(source):
        size += len(chunk)
        crc = zlib.crc32(chunk, crc)
    return size, crc


def _write(out: BinaryIO, update: Callable[[bytes], None], data: bytes) -> None:
    out.write(data)
    update(data)
