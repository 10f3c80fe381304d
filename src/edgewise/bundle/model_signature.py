"""`model.sig`: a signature in the format of OpenSSF Model Signing 1.0, for people who check with its own tool.

A DSSE envelope (secure-systems-lab/dsse 1.0.0) in a Sigstore bundle 0.3, around an in-toto statement that names
every file with its SHA-256. Nothing is left out: `ignore_paths` is empty. The tool's `verify key` takes keys on
NIST curves only, so this one is on P-256.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from securesystemslib.signer import Key, Signer

from edgewise.errors import DigestError, KeyFileError, SignatureError
from edgewise.keys.pair import sign, verify

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []}

_UNREADABLE = (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, RecursionError)


def key_digest(key: Key) -> str:
    """Return the SHA-256 (hex) of a public key's PEM: how this format names a key."""
    return hashlib.sha256(str(key.keyval["public"]).strip().encode() + b"\n").hexdigest()


def make_model_signature(signer: Signer, *, name: str, digests: Mapping[str, str]) -> bytes:
    """Return `model.sig` over files given as path to SHA-256 (hex); raises KeyFileError for a key not on P-256."""
    if signer.public_key.scheme != "ecdsa-sha2-nistp256":
        raise KeyFileError(
            f"the key {signer.public_key.keyid[:16]} signs with {signer.public_key.scheme}",
            required="ECDSA on P-256, which model signatures take",
            next_step="make one with `edgewise keys generate --kind ecdsa-p256`",
        )
    payload = msgspec.json.encode(_statement(name, digests))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(sign(signer, _encoding(payload))).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": key_digest(signer.public_key)}, "tlogEntries": []}
    return msgspec.json.encode({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope})


def check_model_signature(data: bytes, key: Key, digests: Mapping[str, str]) -> None:
    """Raise SignatureError unless `key` signed, and DigestError unless it signed exactly these files."""
    try:
        envelope = msgspec.json.decode(data)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    except _UNREADABLE as error:
        raise SignatureError(
            "the model signature cannot be read",
            required="a Sigstore bundle 0.3 around a DSSE envelope",
            next_step="do not use this bundle",
        ) from error
    verify(key, _encoding(payload), signature)
    try:
        statement = msgspec.json.decode(payload)
        name = statement["subject"][0]["name"]
    except _UNREADABLE as error:
        raise SignatureError(
            "the key signed something else than files",
            required="an in-toto statement that names them",
            next_step="do not use this bundle",
        ) from error
    if statement != _statement(name, digests):
        raise DigestError(
            "the model signature is about other files",
            required="exactly the files of the bundle",
            next_step="do not use this bundle",
        )


def _statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    resources = [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in sorted(digests.items())]
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": _SERIALIZATION, "resources": resources},
    }


def _encoding(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
