"""Encrypts to somebody's public key, so that who writes cannot read: HPKE (RFC 9180) in its base mode.

X25519 with HKDF-SHA-256 and AES-256-GCM. A new key is made for every message; `info` binds a message to its use.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from edgewise.errors import DataError, KeyFileError

_MADE = "openssl genpkey -algorithm x25519 -out capture.pem; openssl pkey -in capture.pem -pubout -out capture.pub"


def seal(data: bytes, public: X25519PublicKey, info: bytes) -> bytes:
    """Return the message that only the private half opens, 48 bytes longer than `data`."""
    return _suite().encrypt(data, public, info)


def unseal(message: bytes, private: X25519PrivateKey, info: bytes) -> bytes:
    """Return what was sealed. Raises DataError where the key or `info` is another, or a bit was changed."""
    try:
        return _suite().decrypt(message, private, info)
    except (InvalidTag, ValueError) as error:
        raise DataError(
            "a sealed sample cannot be opened",
            required="the private half of the key that it was sealed to, and its bytes unchanged",
            next_step="give the right --key; get the file again",
        ) from error


def load_sealing(path: Path) -> X25519PublicKey:
    """Return the public half. Raises KeyFileError."""
    try:
        found = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _refused(path) from error
    if not isinstance(found, X25519PublicKey):
        raise _refused(path)
    return found


def load_unsealing(path: Path, *, passphrase: bytes | None = None) -> X25519PrivateKey:
    """Return the private half. Raises KeyFileError."""
    try:
        found = load_pem_private_key(path.read_bytes(), passphrase)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refused(path) from error
    if not isinstance(found, X25519PrivateKey):
        raise _refused(path)
    return found


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _refused(path: Path) -> KeyFileError:
    return KeyFileError(
        f"{path}: not an X25519 key that can be read", required="the PEM of one", next_step=f"make one: {_MADE}"
    )
