"""The seal: the signature block that ends a bundle, and what exactly is signed.

    edgewise bundle 1 LF SCHEME SP KEY-ID SP SIGNATURE LF

It is the comment of the ZIP archive, so that it can be shown by any tool and lies behind every byte that it
signs. KEY-ID has 64 hex digits, SIGNATURE 128. Signed is CONTEXT and the SHA-256 of all bytes before the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from securesystemslib.signer import Key, Signer

from edgewise.errors import BundleError, KeyFileError, SignatureError
from edgewise.keys.pair import sign, verify

CONTEXT = b"edgewise bundle 1\n"
"""Parts this use of a key from every other one."""

MOST_BYTES = 256
SIGNATURE_BYTES = 64
_BLOCK = re.compile(rb"edgewise bundle 1\n(ed25519|ecdsa-p256) ([0-9a-f]{64}) ([0-9a-f]{128})\n")


class Scheme(StrEnum):
    """How a seal is signed. An ECDSA signature is r and s, 32 bytes each, over SHA-256."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed a bundle, and the signature (64 bytes). It says nothing until it is verified."""

    scheme: Scheme
    key_id: str
    signature: bytes

    def encode(self) -> bytes:
        """Return the block."""
        return b"%s%s %s %s\n" % (CONTEXT, self.scheme.encode(), self.key_id.encode(), self.signature.hex().encode())


_SCHEMES = {"ed25519": Scheme.ED25519, "ecdsa-sha2-nistp256": Scheme.ECDSA_P256}


def scheme_of(key: Key) -> Scheme:
    """Return how a key seals; raises KeyFileError for a key of a kind that does not."""
    if key.scheme not in _SCHEMES or len(key.keyid) != 64:
        raise KeyFileError(
            f"the key {key.keyid[:16]} signs with {key.scheme}",
            required="Ed25519, or ECDSA on P-256",
            next_step="make a key with `edgewise keys generate`",
        )
    return _SCHEMES[key.scheme]


def make_seal(signer: Signer, digest: bytes) -> Seal:
    """Return the seal over the SHA-256 (32 bytes) of everything before it."""
    scheme = scheme_of(signer.public_key)
    signature = sign(signer, CONTEXT + digest)
    if scheme is Scheme.ECDSA_P256:
        r, s = decode_dss_signature(signature)
        signature = r.to_bytes(SIGNATURE_BYTES // 2, "big") + s.to_bytes(SIGNATURE_BYTES // 2, "big")
    return Seal(scheme=scheme, key_id=signer.public_key.keyid, signature=signature)


def empty_seal(key: Key) -> Seal:
    """Return a seal that is as long as one by this key will be."""
    return Seal(scheme=scheme_of(key), key_id=key.keyid, signature=bytes(SIGNATURE_BYTES))


def check_seal(seal: Seal, digest: bytes, trusted: Iterable[Key]) -> None:
    """Raise SignatureError unless one of the trusted keys made the seal over this SHA-256 (32 bytes)."""
    keys = {each.keyid: each for each in trusted}
    key = keys.get(seal.key_id)
    if key is None or scheme_of(key) is not seal.scheme:
        raise SignatureError(
            f"the bundle is sealed with the {seal.scheme} key {seal.key_id[:16]}",
            required=f"one of the trusted keys: {', '.join(each[:16] for each in keys) or 'none is given'}",
            next_step="trust that key if you know whose it is; otherwise do not use this bundle",
        )
    signature = seal.signature
    if seal.scheme is Scheme.ECDSA_P256:
        half = SIGNATURE_BYTES // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        signature = encode_dss_signature(r, s)
    verify(key, CONTEXT + digest, signature)


def parse_seal(tail: bytes) -> Seal:
    """Return the seal that ends `tail`, the last MOST_BYTES of a file; raises BundleError where there is none."""
    start = tail.rfind(CONTEXT)
    found = _BLOCK.fullmatch(tail[start:]) if start >= 0 else None
    if found is None:
        raise BundleError(
            "the file does not end with the seal of a bundle",
            required="a bundle of format version 1, whole and with nothing behind it",
            next_step="get the file again; it may be cut off, or of another format",
        )
    return Seal(scheme=Scheme(found[1].decode()), key_id=found[2].decode(), signature=bytes.fromhex(found[3].decode()))
