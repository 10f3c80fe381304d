"""The two PEM files of a pair, and signers by file or by URI."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import Error as SigningLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, Key, Signer, SSlibKey

from edgewise.errors import KeyFileError, OutputError
from edgewise.keys.pair import PrivateKey, signer_of
from edgewise.keys.passphrase import check_new

KINDS = "an Ed25519 key or one on the curve P-256, as PEM"


def save_pair(private: PrivateKey, path: Path, *, passphrase: bytes | None) -> tuple[Path, Path]:
    """Write `path` (mode 0600) and, beside it with the suffix .pub, the public half; return both.

    `passphrase=None` writes the private half unencrypted, for an online key whose disk is
    guarded otherwise. Nothing is overwritten. Raises OutputError, or KeyFileError for a short passphrase.
    """
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        check_new(passphrase)
        encryption = BestAvailableEncryption(passphrase)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_suffix(".pub")
    _create(path, secret, mode=0o600)
    try:
        _create(beside, public, mode=0o644)
    except OutputError:
        path.unlink(missing_ok=True)
        raise
    return path, beside


def load_private(path: Path, *, passphrase: bytes | None = None) -> PrivateKey:
    """Return the private half. Raises KeyFileError where the file, the kind or the passphrase is wrong."""
    data = _read(path)
    encrypted = b"ENCRYPTED" in data
    if encrypted and passphrase is None:
        raise KeyFileError(
            f"{path}: the key is encrypted", required="its passphrase", next_step="give the passphrase it was made with"
        )
    try:
        found = load_pem_private_key(data, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path}: not a private key that can be read" + (" with this passphrase" if encrypted else ""),
            required=f"{KINDS}, and its passphrase",
            next_step="check the path and the passphrase",
        ) from error
    if isinstance(found, Ed25519PrivateKey) or (
        isinstance(found, EllipticCurvePrivateKey) and isinstance(found.curve, SECP256R1)
    ):
        return found
    raise _unsupported(path)


def is_encrypted(path: Path) -> bool:
    """Return whether the private key needs a passphrase. Raises KeyFileError where it cannot be read."""
    return b"ENCRYPTED" in _read(path)


def load_public(path: Path) -> SSlibKey:
    """Return the public half. Raises KeyFileError where it cannot be read or is of another kind."""
    try:
        found = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path}: not a public key", required=KINDS, next_step="give the .pub file of the pair"
        ) from error
    if isinstance(found, Ed25519PublicKey) or (
        isinstance(found, EllipticCurvePublicKey) and isinstance(found.curve, SECP256R1)
    ):
        return SSlibKey.from_crypto(found)
    raise _unsupported(path)


def open_signer(reference: str, *, public: Key | None = None, passphrase: bytes | None = None) -> Signer:
    """Return what signs with a key named by a PEM file or by a URI (hsm:, gcpkms:, awskms:, azurekms:, ...).

    A URI names no public half: `public` says which one is meant. Raises KeyFileError where the key
    cannot be opened, or does not belong to `public`.
    """
    scheme = reference.partition(":")[0]
    if ":" in reference and scheme in SIGNER_FOR_URI_SCHEME:
        return _by_uri(reference, public)
    signer = signer_of(load_private(Path(reference), passphrase=passphrase))
    if public is not None and signer.public_key.keyid != public.keyid:
        raise KeyFileError(
            f"{reference}: the key {signer.public_key.keyid[:16]}",
            required=f"the private half of {public.keyid[:16]}",
            next_step="give the private key of this pair",
        )
    return signer


def _by_uri(reference: str, public: Key | None) -> Signer:
    if public is None:
        raise KeyFileError(
            f"{reference}: a key outside of files, and no public half",
            required="the public key as a file",
            next_step="export it from the hardware or the service and name it too",
        )
    try:
        return Signer.from_priv_key_uri(reference, public)
    except (ValueError, OSError, SigningLibraryError) as error:
        raise KeyFileError(
            f"{reference}: {error}",
            required="a key that securesystemslib can open",
            next_step="install what this kind of key needs (securesystemslib[hsm], [gcpkms], ...) and check the URI",
        ) from error


def _unsupported(path: Path) -> KeyFileError:
    return KeyFileError(
        f"{path}: a key of another kind", required=KINDS, next_step="make one with `edgewise keys generate`"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}", required="a key file that can be read", next_step="check its path and owner"
        ) from error


def _create(path: Path, data: bytes, *, mode: int) -> None:
    """Write a new file, whole or not at all, with its mode from the first byte on."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.link(partial, path)  # unlike a rename it never replaces a key that is there
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror}",
            required="a new file in a folder that can be written",
            next_step="choose another name: a key is never overwritten",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
