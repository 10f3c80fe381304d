"""Those who talk to a server: operators with a token, devices with a key."""

from __future__ import annotations

import secrets
import time
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewise.contracts.enrolment import Enrolled, EnrolRequest, Signed, to_sign, write_header


class Device(httpx.Auth):
    """A device that signs what it sends."""

    requires_request_body = True

    def __init__(self, name: str | None = None) -> None:
        """Make a key."""
        self.name = name or f"device-{uuid4().hex[:12]}"
        self.key = Ed25519PrivateKey.generate()
        self.skew_s = 0
        self.nonce: str | None = None

    def auth_flow(self, request: httpx.Request) -> Any:
        """Sign a request."""
        signed = Signed(
            device=self.name,
            timestamp_s=int(time.time()) + self.skew_s,
            nonce=self.nonce or secrets.token_hex(16),
            signature=b"",
        )
        message = to_sign(
            device=signed.device,
            method=request.method,
            target=request.url.raw_path.decode(),
            body=request.content,
            timestamp_s=signed.timestamp_s,
            nonce=signed.nonce,
        )
        signed = msgspec.structs.replace(signed, signature=self.key.sign(message))
        request.headers["authorization"] = write_header(signed)
        yield request


class Fleet:
    """A running server, with a token of an operator and one of a signer."""

    def __init__(self, url: str, operator_token: str, signer_token: str = "") -> None:
        """Connect."""
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)
        self.operator = bearer(operator_token)
        self.signer = bearer(signer_token)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def token(self, role: str, *products: str) -> dict[str, str]:
        """Make a token for a viewer or operator and return its header."""
        body = {"role": role, "products": products}
        made = self.http.post("/api/v1/tokens", json=body, headers=self.operator)
        assert made.status_code == 201, made.text
        return bearer(made.json()["token"])

    def enrolment(self, product: str = "kws", device_class: str = "pi5", labels: tuple[str, ...] = ()) -> str:
        """Return a one-time token."""
        body = {"product": product, "device_class": device_class, "labels": labels}
        made = self.http.post("/api/v1/enrolments", json=body, headers=self.operator)
        assert made.status_code == 201, made.text
        text: str = made.json()["tokens"][0]
        return text

    def enrol(self, device: Device, token: str) -> httpx.Response:
        """Let a device join."""
        key = device.key.public_key().public_bytes_raw()
        body = msgspec.json.encode(EnrolRequest(token=token, device=device.name, public_key=key))
        return self.http.post("/api/v1/enrol", content=body, headers={"content-type": "application/json"})

    def device(self, product: str = "kws", device_class: str = "pi5", labels: tuple[str, ...] = ()) -> Device:
        """Return a new device that has joined."""
        device = Device()
        joined = self.enrol(device, self.enrolment(product, device_class, labels))
        assert joined.status_code == 201, joined.text
        assert msgspec.json.decode(joined.content, type=Enrolled).product == product
        return device


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"authorization": f"Bearer {token}"}
