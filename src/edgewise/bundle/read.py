"""Read a bundle that nobody trusts yet: strictly, within limits, and never more than asked for.

`Bundle.open` reads the directory and the manifest and checks that they agree. `verify` reads everything once:
the seal, the CRC-32 and the SHA-256 of every file. Nothing of an opened bundle says who made it before that.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
from securesystemslib.signer import Key

from edgewise.bundle.archive import Entry, Index, read_index
from edgewise.bundle.model_signature import check_model_signature
from edgewise.bundle.names import MANIFEST, MODEL_SIGNATURE, MOST_CHARACTERS
from edgewise.bundle.replacing import replacing
from edgewise.bundle.rules import check_manifest
from edgewise.bundle.seal import Seal, check_seal
from edgewise.bundle.stage_rules import check_pipeline
from edgewise.bundle.write import CHUNK_BYTES, encode_manifest
from edgewise.contracts.manifest import BUNDLE_VERSION, Manifest
from edgewise.contracts.pipeline import MOST_STAGES, PipelineManifest, Sealed
from edgewise.errors import BundleError, DigestError, SignatureError

MOST_MANIFEST_BYTES = 16 << 20


class _Head(msgspec.Struct):
    format_version: int
    pipeline: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Bundle:
    """An open bundle; use it in a `with` block. The file must not change meanwhile."""

    def __init__(self, file: BinaryIO, *, name: str) -> None:
        """Read directory and manifest of an open file; raises BundleError where they are not those of a bundle."""
        self._file = file
        self.name = name
        self.index: Index = read_index(file)
        self.entries = {each.name: each for each in self.index.entries}
        self.manifest_bytes = self._read(self.entries[MANIFEST], most=MOST_MANIFEST_BYTES)
        self.sealed: Sealed = decode_sealed(self.manifest_bytes)
        """The manifest, of one model or of several stages."""
        self.stages: dict[str, Manifest] = {}
        """The manifests of the stages, where it is a bundle of several."""
        sizes = {each.name: each.size for each in self.index.entries}
        if isinstance(self.sealed, PipelineManifest):
            self.stages = self._stages(self.sealed)
            check_pipeline(self.sealed, self.stages, sizes)
        else:
            check_manifest(self.sealed, sizes)
        self._digests = {each.path: each.digest for each in self.sealed.files}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file as a bundle; raises BundleError."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise BundleError(
                f"{path}: {error.strerror}", required="a bundle that can be read", next_step="check the path"
            ) from error
        try:
            return cls(file, name=path.name)
        except OSError as error:
            file.close()
            raise BundleError(f"{path}: {error.strerror}", required="a bundle that can be read") from error
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        """Return the bundle."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    @property
    def manifest(self) -> Manifest:
        """The manifest of a bundle of one model. Raises BundleError for one of several stages."""
        return of_one_model(self.sealed)

    @property
    def seal(self) -> Seal:
        """Who claims to have sealed it."""
        return self.index.seal

    def verify(self, trusted: Iterable[Key]) -> str:
        """Check the seal and every file; return the SHA-256 (hex) of the whole bundle.

        Raises SignatureError for a seal that is not of a trusted key, DigestError for a file that is not the one
        that was sealed. The manifest is covered by the seal itself.
        """
        whole = self._digest(0, self.index.signed_bytes)
        check_seal(self.seal, whole.digest(), trusted)
        for entry in self.index.entries:
            self._check(entry)
        whole.update(self.seal.encode())
        return whole.hexdigest()

    def verify_model_signature(self, key: Key) -> None:
        """Check `model.sig` over what the manifest says of the files; raises SignatureError or DigestError.

        It does not read the files: `verify` does.
        """
        if MODEL_SIGNATURE not in self.entries:
            raise SignatureError(f"{self.name} holds no {MODEL_SIGNATURE}", next_step="leave out its key")
        data = self._read(self.entries[MODEL_SIGNATURE], most=MOST_MANIFEST_BYTES)
        manifest = hashlib.sha256(self.manifest_bytes).hexdigest()
        check_model_signature(data, key, self._digests | {MANIFEST: manifest})

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the whole bundle; it says nothing about who made it."""
        whole = self._digest(0, self.index.signed_bytes)
        whole.update(self.seal.encode())
        return whole.hexdigest()

    def read(self, path: str, *, most: int) -> bytes:
        """Return a file of at most `most` bytes; raises DigestError where it is not the one that was sealed."""
        entry = self._entry(path)
        data = self._read(entry, most=most)
        self._compare(entry, hashlib.sha256(data).hexdigest())
        return data

    def extract(self, folder: Path) -> tuple[Path, ...]:
        """Write every file below `folder`, which must not exist yet; return their paths.

        What is written is compared with the digests on the way. Raises DigestError and OutputError; what was
        written until then stays, so give a folder that can be thrown away.
        """
        written = []
        for entry in self.index.entries:
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as out:
                self._check(entry, out=out)
            written.append(path)
        return tuple(written)

    def _stages(self, whole: PipelineManifest) -> dict[str, Manifest]:
        """Return the manifests of the stages; none that the whole does not name by its digest is decoded."""
        found: dict[str, Manifest] = {}
        left = MOST_MANIFEST_BYTES
        for stage in whole.pipeline.stages[:MOST_STAGES]:
            data = self._read(self._entry(f"{stage.name[:MOST_CHARACTERS]}/{MANIFEST}"), most=left)
            left -= len(data)
            if hashlib.sha256(data).hexdigest() != stage.bundle:
                raise BundleError(
                    f"the stage {stage.name} is another bundle than the manifest names",
                    required=stage.bundle[:64],
                    next_step="do not use this file; get it again",
                )
            found[stage.name] = decode_manifest(data)
        return found

    def _entry(self, path: str) -> Entry:
        if path not in self.entries:
            raise BundleError(f"{self.name} holds no file {path!r}", required=f"one of {', '.join(self.entries)}")
        return self.entries[path]

    def _check(self, entry: Entry, *, out: BinaryIO | None = None) -> None:
        """Compare a file with its CRC-32 and digest, and copy it on the way."""
        state = hashlib.sha256()
        crc = 0
        for chunk in self._chunks(entry.offset, entry.size):
            state.update(chunk)
            crc = zlib.crc32(chunk, crc)
            if out is not None:
                out.write(chunk)
        if crc != entry.crc32:
            raise DigestError(f"{entry.name} does not have the CRC-32 of its header", next_step="seal it again")
        self._compare(entry, state.hexdigest())

    def _compare(self, entry: Entry, digest: str) -> None:
        if entry.name in {MANIFEST, MODEL_SIGNATURE}:  # the seal alone speaks for those
            return
        if digest != self._digests[entry.name]:
            raise DigestError(
                f"{entry.name} has the SHA-256 {digest}",
                required=f"{self._digests[entry.name]}, as the manifest says",
                next_step="do not use this bundle; get it again",
            )

    def _read(self, entry: Entry, *, most: int) -> bytes:
        if entry.size > most:
            raise BundleError(f"{entry.name} has {entry.size} bytes", required=f"at most {most}")
        return b"".join(self._chunks(entry.offset, entry.size))

    def _digest(self, start: int, length: int) -> hashlib._Hash:
        state = hashlib.sha256()
        for chunk in self._chunks(start, length):
            state.update(chunk)
        return state

    def _chunks(self, start: int, length: int) -> Iterator[bytes]:
        left = length
        while left:
            self._file.seek(start + length - left)
            chunk = self._file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise BundleError(f"{self.name} became shorter while it was read", next_step="get it again")
            left -= len(chunk)
            yield chunk


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest of one model; raises BundleError where it is none, or not in its one form."""
    return of_one_model(decode_sealed(data))


def of_one_model(found: Sealed) -> Manifest:
    """Return a manifest that is of one model. Raises BundleError for one of several stages."""
    if isinstance(found, Manifest):
        return found
    raise BundleError(
        f"{found.product[:80]} {found.version[:40]} is a bundle of several stages",
        required="a bundle of one model",
        next_step="use the bundle of one of its stages",
    )


def decode_sealed(data: bytes) -> Sealed:
    """Return a manifest; raises BundleError where it is of another version or not in its one form."""
    try:
        head = msgspec.json.decode(data, type=_Head)
        version = head.format_version
        if version != BUNDLE_VERSION:
            raise BundleError(
                f"the bundle has format version {version}",
                required=f"format version {BUNDLE_VERSION}",
                next_step="use a newer edgewise" if version > BUNDLE_VERSION else "seal it again",
            )
        kind: type[Sealed] = Manifest if head.pipeline is msgspec.UNSET else PipelineManifest
        manifest: Sealed = msgspec.json.decode(data, type=kind)
        is_canonical = encode_manifest(manifest) == data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"the manifest cannot be read: {error}", next_step="do not use this file") from error
    if not is_canonical:
        raise BundleError(
            "the manifest is not in canonical form",
            required="the bytes that encoding it again gives",
            next_step="do not use this file",
        )
    return manifest
