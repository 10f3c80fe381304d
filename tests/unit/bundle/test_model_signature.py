from __future__ import annotations

import base64

import msgspec
import pytest

from edgewise.bundle.model_signature import _encoding, check_model_signature
from edgewise.errors import SignatureError
from edgewise.keys.pair import generate, public_of, sign, signer_of

PRIVATE = generate("ecdsa-p256")


def signed(payload: bytes) -> bytes:
    """Return a well-formed, rightly signed envelope around any payload."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(sign(signer_of(PRIVATE), _encoding(payload))).decode()}],
    }
    return msgspec.json.encode({"dsseEnvelope": envelope})


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{}", b"[]", b"1", b'{"subject":[]}', b'{"subject":[1]}', b"[" * 100_000]
)
def test_what_the_key_signed_for_another_purpose_is_no_model_signature(payload: bytes) -> None:
    with pytest.raises(SignatureError, match="something else"):
        check_model_signature(signed(payload), public_of(PRIVATE), {})


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"dsseEnvelope":1}', b'{"dsseEnvelope":' + b"[" * 100_000])
def test_an_envelope_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(SignatureError, match="cannot be read"):
        check_model_signature(data, public_of(PRIVATE), {})
