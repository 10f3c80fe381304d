"""The two PEM files of a pair, and signers by file or by URI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

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
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    AWSSigner,
    GCPSigner,
    HSMSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

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

    A URI names no public half: `public` says which one is meant; `passphrase` is then the PIN of hardware that asks for
    one. Raises KeyFileError where the key cannot be opened, or does not belong to `public`.
    """
    if is_uri(reference):
        return _by_uri(reference, public, passphrase)
    signer = signer_of(load_private(Path(reference), passphrase=passphrase))
    if public is not None and signer.public_key.keyid != public.keyid:
        raise KeyFileError(
            f"{reference}: the key {signer.public_key.keyid[:16]}",
            required=f"the private half of {public.keyid[:16]}",
            next_step="give the private key of this pair",
        )
    return signer


def is_uri(reference: str) -> bool:
    """Return whether a key is named by a URI of hardware or of a key service, and not by a file."""
    return ":" in reference and reference.partition(":")[0] in SIGNER_FOR_URI_SCHEME and not Path(reference).exists()


def asks_for_pin(reference: str) -> bool:
    """Return whether a URI is of hardware that opens with a PIN."""
    return is_uri(reference) and reference.startswith(f"{HSMSigner.SCHEME}:")


def import_public(reference: str, path: Path, *, pin: bytes | None = None) -> SSlibKey:
    """Ask hardware or a key service for the public half of its key, and write it to `path`.

    Raises KeyFileError where it does not answer, has no such key, or one of another kind; OutputError.
    """
    scheme, _, rest = reference.partition(":")
    kinds = {HSMSigner.SCHEME: "hsm", AWSSigner.SCHEME: "awskms", GCPSigner.SCHEME: "gcpkms"}
    if scheme not in kinds:
        raise KeyFileError(
            f"{reference}: a key of the kind {scheme[:40]!r}",
            required=f"a URI that begins with {', '.join(f'{each}:' for each in kinds.values())}",
            next_step="for other services export the public key with their own tool",
        )
    with _answering(reference):
        if scheme == HSMSigner.SCHEME:
            number, _, query = rest.partition("?")
            label = dict(parse_qsl(query)).get("label")
            key = HSMSigner.import_(int(number) if number else None, label, None if pin is None else _handler(pin))[1]
        else:
            key = (AWSSigner if scheme == AWSSigner.SCHEME else GCPSigner).import_(rest)[1]
    _create(path, str(key.keyval["public"]).encode(), mode=0o644)
    try:
        return load_public(path)
    except KeyFileError:
        path.unlink()
        raise


def _by_uri(reference: str, public: Key | None, pin: bytes | None) -> Signer:
    if public is None:
        raise KeyFileError(
            f"{reference}: a key outside of files, and no public half",
            required="the public key as a file",
            next_step="edgewise keys import writes it; name it with --public",
        )
    with _answering(reference):
        return _Remote(Signer.from_priv_key_uri(reference, public, None if pin is None else _handler(pin)), reference)


class _Remote(Signer):
    """A key outside of files, whose library raises anything when it is asked to sign."""

    def __init__(self, signer: Signer, reference: str) -> None:
        self._signer = signer
        self._reference = reference

    @property
    def public_key(self) -> Key:
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        return cls(Signer.from_priv_key_uri(priv_key_uri, public_key, secrets_handler), priv_key_uri)

    def sign(self, payload: bytes) -> Signature:
        with _answering(self._reference):
            made = self._signer.sign(payload)
            self.public_key.verify_signature(made, payload)  # hardware may hold another key than the one that is named
            return made


def _handler(pin: bytes) -> SecretsHandler:
    return lambda _: pin.decode()


@contextlib.contextmanager
def _answering(reference: str) -> Iterator[None]:
    """Turn what hardware, key services and their libraries raise into KeyFileError."""
    try:
        yield
    except KeyFileError:
        raise
    except Exception as error:  # every vendor's library has exceptions of its own, with no root in common
        raise KeyFileError(
            f"{reference}: {str(error) or type(error).__name__}",
            required="a key that securesystemslib can open, and its PIN",
            next_step="install what this kind of key needs (securesystemslib[hsm], [gcpkms], ...), check URI and PIN",
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
