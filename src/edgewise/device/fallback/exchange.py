"""One request to the cloud server and its reply, with limits on time and size; no redirect is followed."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgewise.device.fallback import openai, tensors
from edgewise.device.fallback.options import CloudOptions, CloudProtocol
from edgewise.device.fallback.question import Local, Question
from edgewise.device.fallback.secret import read_secret
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Reply, Sent, Transport, check_address
from edgewise.errors import ConfigError, HttpStatusError, MalformedReplyError
from edgewise.runtimes.base import Array

OK = 200


class Exchange:
    """Knows the server, its protocol and the key to it."""

    def __init__(self, options: CloudOptions) -> None:
        """Check the options and read the key. Raises ConfigError and UnsafeAddressError."""
        self._options = options
        self._is_openai = options.protocol is CloudProtocol.OPENAI
        self._request: Callable[[Question], bytes] = tensors.request
        self._answer = tensors.answer
        self._url = _checked(options.url)
        if self._is_openai:
            openai.check_options(options)
            self._request, self._answer = partial(openai.request, options=options), openai.answer
            self._url = options.url.rstrip("/") + openai.PATH
        self._tls = _tls(options.ca_file) if self._url.startswith("https:") else None
        self._key = read_secret(file=options.key_file, variable=options.key_env)

    def unsendable(self, local: Local) -> str:
        """Return why an input cannot be sent, empty where it can."""
        return openai.unsendable(local) if self._is_openai else ""

    def body(self, question: Question) -> bytes:
        """Return the request's body. Raises ConfigError where the input cannot be sent."""
        body = self._request(question)
        if len(body) > self._options.most_sent_bytes:
            raise ConfigError(f"a request of {len(body)} bytes", required=f"at most {self._options.most_sent_bytes}")
        return body

    def send(self, body: bytes, question: Question, *, seconds: float, before: Callable[[], None]) -> dict[str, Array]:
        """Return the outputs of the reply.

        `before` is called when the connection stands and nothing was sent yet; what it raises ends the call. Raises
        TransferError, whatever was wrong with the reply.
        """
        transport = Transport(Pace(grace_s=seconds, bytes_per_s=1e9, idle_s=seconds, total_s=seconds), tls=self._tls)

        def sent(_: str) -> Sent:
            before()
            return Sent(body, self._headers())

        with transport.post(self._url, sent) as reply:
            reply.check_status()
            if reply.status != OK:
                error = HttpStatusError(f"{self._url}: the server answered {reply.status}", required=f"{OK}")
                error.status = reply.status
                raise error
            found = self._body_of(reply, question)
        return self._answer(found, question)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers if self._key is None else {**headers, "Authorization": f"Bearer {self._key.reveal()}"}

    def _body_of(self, reply: Reply, question: Question) -> bytes:
        outputs = sum(math.prod(each.shape) * each.dtype.itemsize for each in question.forms.values())
        most = self._options.most_received_bytes + 4 * outputs // 3
        found = bytearray()
        for chunk in reply.chunks():
            found += chunk
            if len(found) > most:
                raise MalformedReplyError(f"{self._url}: more than {most} bytes", required="a reply within the limit")
        return bytes(found)


def _checked(url: str) -> str:
    """Return an address that a key may be sent to. Raises ConfigError and UnsafeAddressError."""
    parts = check_address(url)
    if parts.query or parts.fragment:  # addresses stand in messages, and what follows `?` is often a key
        raise ConfigError("the cloud server's address has a query", required="a path alone; the key stands in a file")
    if parts.scheme != "https" and not _is_this_machine(parts.hostname or ""):
        raise ConfigError(f"the address {url}", required="https, or http to this machine")
    return url


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _tls(ca_file: str) -> ssl.SSLContext:
    """Return settings that trust the system's certificates, or those of a file. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=str(Path(ca_file)) if ca_file else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{ca_file}: no certificates can be read", required="a file of certificates, PEM") from error
