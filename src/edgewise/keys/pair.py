"""The two kinds of key, what signs with them and what verifies.

Ed25519 (RFC 8032) signs bundles and metadata. ECDSA on P-256 is there for OpenSSF model signatures,
whose verifier takes no other kind that fits in a file.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_on_curve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Key, Signature, Signer

from edgewise.errors import SignatureError

KeyKind: TypeAlias = Literal["ed25519", "ecdsa-p256"]
PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey


def generate(kind: KeyKind = "ed25519") -> PrivateKey:
    """Make a key from the operating system's randomness."""
    return Ed25519PrivateKey.generate() if kind == "ed25519" else generate_on_curve(SECP256R1())


def signer_of(private: PrivateKey) -> Signer:
    """Return what signs with a key, in the form that metadata and bundles take."""
    return CryptoSigner(private)


def public_of(private: PrivateKey) -> Key:
    """Return the public half. Its `keyid` is the SHA-256 over its canonical JSON (TUF, section 4.2)."""
    return CryptoSigner(private).public_key


def sign(signer: Signer, data: bytes) -> bytes:
    """Return the signature over `data`: 64 bytes for Ed25519, DER for ECDSA."""
    return bytes.fromhex(signer.sign(data).signature)


def verify(public: Key, data: bytes, signature: bytes) -> None:
    """Raise SignatureError unless `signature` over `data` is by the private half of `public`."""
    try:
        public.verify_signature(Signature(public.keyid, signature.hex()), data)
    except (UnverifiedSignatureError, VerificationError) as error:
        raise SignatureError(
            f"the signature is not by the key {public.keyid[:16]}, or what it signs was changed",
            required="the bytes exactly as they were signed",
            next_step="get the file again from its source; do not use this one",
        ) from error
