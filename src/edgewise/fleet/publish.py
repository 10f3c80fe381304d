"""Takes a bundle in: to a temporary file first, its seal and every digest checked, then into the store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
from securesystemslib.signer import Key

from edgewise.bundle.names import BOM, CARD, EVIDENCE
from edgewise.bundle.read import Bundle
from edgewise.errors import BundleError, ConfigError, OutputError
from edgewise.fleet.store.objects import Objects
from edgewise.fleet.store.releases import ReleaseView
from edgewise.keys.files import load_public

SHOWN = (EVIDENCE, CARD, BOM)
"""Files of a bundle that the server keeps beside it, to show them."""
MOST_SHOWN_BYTES = 16 * 1024 * 1024


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself, once its seal was found good."""

    product: str
    version: str
    digest: str
    sha256: str
    manifest: bytes
    shown: dict[str, bytes]


def load_trusted(folder: Path | None) -> tuple[Key, ...]:
    """Return the public keys (`*.pub`) of a folder. Raises ConfigError, KeyFileError."""
    if folder is None:
        return ()
    try:
        found = sorted(folder.glob("*.pub")) if folder.is_dir() else []
    except OSError as error:
        raise ConfigError(f"--trusted {folder}: {error.strerror}", required="a folder that can be read") from error
    if not found:
        raise ConfigError(f"--trusted {folder} holds no public keys", required="a folder with files *.pub")
    return tuple(load_public(path) for path in found)


@contextlib.asynccontextmanager
async def taken(pieces: AsyncIterator[bytes], *, limit_bytes: int) -> AsyncIterator[Path]:
    """Yield a temporary file with what came in. Raises BundleError above the limit, OutputError for a full disk."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        path, size = Path(folder) / "bundle", 0
        try:
            with path.open("wb") as out:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit_bytes:
                        raise BundleError(f"more than {limit_bytes} bytes", required="a smaller bundle")
                    await asyncio.to_thread(out.write, piece)
        except OSError as error:
            raise OutputError(f"the bundle cannot be kept: {error.strerror}", required="space on the disk") from error
        yield path


def check(path: Path, trusted: Sequence[Key]) -> Checked:
    """Return what the bundle says. Raises BundleError, SignatureError or DigestError."""
    with Bundle.open(path) as bundle:
        sha256 = bundle.verify(trusted)
        manifest = bundle.sealed
        held = {each.path for each in manifest.files}
        return Checked(
            product=manifest.product,
            version=manifest.version,
            digest=bundle_digest(bundle),
            sha256=sha256,
            manifest=bundle.manifest_bytes,
            shown={name: bundle.read(name, most=MOST_SHOWN_BYTES) for name in SHOWN if name in held},
        )


def bundle_digest(bundle: Bundle) -> str:
    """Return the SHA-256 of the manifest, which is how devices and rollouts name a release."""
    return hashlib.sha256(bundle.manifest_bytes).hexdigest()


async def keep(objects: Objects, path: Path, checked: Checked, *, now_ms: int, actor: str) -> ReleaseView:
    """Put a checked bundle into the store, beside it what is shown of it; its row is the caller's to add."""
    folder = release_folder(checked.product, checked.version)
    view = ReleaseView(
        product=checked.product,
        version=checked.version,
        digest=checked.digest,
        sha256=checked.sha256,
        size_bytes=path.stat().st_size,  # noqa: ASYNC240 - a file of ours on the local disk
        object=f"{folder}/{checked.sha256}.edgewise",
        created_ms=now_ms,
        created_by=actor,
    )
    for name, data in checked.shown.items():
        await objects.write(f"{folder}/{checked.sha256}/{name}", data)
    await objects.write(view.object, path)
    return view


def release_folder(product: str, version: str) -> str:
    """Return where files of a release lie in the store."""
    return f"releases/{product}/{version}"
