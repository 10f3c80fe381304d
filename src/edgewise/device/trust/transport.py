"""HTTP over the standard library's sockets, every received byte under a guard.

A client library bounds the wait for each read, not what an attacker does with many small ones: a
header sent one byte every nine seconds holds it for days. Here the guard sits below the parser, at the
socket, so that status lines, headers, chunk sizes and bodies all count.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from edgewise import __version__
from edgewise.device.trust.pace import Guard, Pace
from edgewise.errors import (
    EndlessDataError,
    HttpStatusError,
    TransferError,
    TruncatedError,
    UnreachableError,
    UnsafeAddressError,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 64 * 1024
MOST_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SCHEMES = ("http", "https")
"""Metadata and targets are signed, so plain HTTP gives nothing away but what a device fetches."""
IN_PATH = "/%:@!$&'()*+,;=~-._"


class Sent(NamedTuple):
    """What a POST carries."""

    body: bytes
    headers: Mapping[str, str]


class Reply:
    """The answer to one request: its status, its headers (lower case), its body as chunks."""

    def __init__(self, response: http.client.HTTPResponse, url: str, guard: Guard) -> None:
        """Wrap a response whose headers were read."""
        self._response = response
        self._guard = guard
        self.url = url
        self.status = response.status
        self.headers = {key.lower(): value for key, value in response.getheaders()}

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises TransferError where it breaks, slows down or ends too soon."""
        with _network(self.url):
            while chunk := self._response.read1(CHUNK):
                self._guard.patience_s()  # a steady trickle never waits long, and is still too slow
                yield chunk
        if self._response.length:
            raise _truncated(self.url, f"{self._response.length} bytes")

    @property
    def retry_after_s(self) -> float | None:
        """What the server asked to wait."""
        return _seconds(self.headers.get("retry-after", ""))

    def read(self, *, most: int) -> bytes:
        """Return the body. Raises EndlessDataError where it is longer than `most` bytes, else as `chunks`."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > most:
                raise EndlessDataError(
                    f"{self.url}: more than {most} bytes",
                    required=f"an answer of at most {most} bytes",
                    next_step="check the server's address",
                )
        return bytes(body)

    def check_status(self) -> None:
        """Raise HttpStatusError for a status of 400 or more."""
        if self.status >= 400:
            error = HttpStatusError(
                f"{self.url}: the server answered {self.status}",
                required="a status below 400",
                next_step="try again later; if it stays, check the repository's address",
            )
            error.status = self.status
            error.retry_after_s = self.retry_after_s
            raise error


class Transport:
    """Requests, one connection each."""

    def __init__(
        self,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.monotonic,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the limits, headers for each request (left out after a redirect) and TLS settings."""
        self._pace = pace
        self._clock = clock
        self._headers = {"User-Agent": f"edgewise/{__version__}"}
        self._private_headers = dict(headers or {})
        self._given_tls = tls

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
        """Ask for `url` and give the reply, whatever its status; redirects within the scheme are followed.

        Raises UnsafeAddressError for other schemes, UnreachableError and SlowRetrievalError.
        """
        guard = Guard(self._pace, self._clock)
        sent = {**self._headers, **self._private_headers, **(headers or {})}
        for _ in range(MOST_REDIRECTS + 1):
            with contextlib.closing(self._connection(url, guard)) as connection:
                with _network(url):
                    connection.request("GET", _request_target(url, connection), headers=sent)
                    response = connection.getresponse()
                with contextlib.closing(response):  # it keeps the socket open, also after the connection is closed
                    if response.status not in REDIRECTS:
                        yield Reply(response, url, guard)
                        return
                    url = _redirected(url, response.getheader("Location"))
                sent = {**self._headers, **(headers or {})}
        raise UnreachableError(
            f"{url}: more than {MOST_REDIRECTS} redirects",
            required="an address that answers",
            next_step="check the repository's address",
        )

    @contextlib.contextmanager
    def post(self, url: str, make: Callable[[str], Sent]) -> Iterator[Reply]:
        """Send what `make` returns for the path with its query; give the reply, whatever its status.

        `make` is called when the connection stands: what it gives has surely not been received where this fails
        before. No redirect is followed. Raises as `get`.
        """
        guard = Guard(self._pace, self._clock)
        with contextlib.closing(self._connection(url, guard)) as connection:
            with _network(url):
                connection.connect()
            sent = make(_path(url))
            headers = {**self._headers, **self._private_headers, **sent.headers}
            with _network(url):
                connection.request("POST", _request_target(url, connection), body=sent.body, headers=headers)
                response = connection.getresponse()
            with contextlib.closing(response):
                yield Reply(response, url, guard)

    def _connection(self, url: str, guard: Guard) -> http.client.HTTPConnection:
        """Return a connection, not yet open, whose answers are read under the guard."""
        parts = check_address(url)
        host, port, proxy = parts.hostname or "", parts.port, _proxy(parts)
        to_host, to_port = (proxy.hostname or "", proxy.port) if proxy else (host, port)
        wait = guard.patience_s()
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(to_host, to_port, timeout=wait, context=self._tls)
            if proxy:
                connection.set_tunnel(host, port)
        else:
            connection = http.client.HTTPConnection(to_host, to_port, timeout=wait)
        # http.client calls it as a factory; this is its one place for another way to read.
        connection.response_class = _under(guard)  # type: ignore[assignment]
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The operating system's certificates, unless others were given; read once."""
        return self._given_tls or ssl.create_default_context()


def check_address(url: str) -> SplitResult:
    """Return the parts of an address. Raises UnsafeAddressError for one that is no http or https address."""
    try:
        parts = urlsplit(url)
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_a_number = urlsplit(""), False
    if parts.scheme not in SCHEMES or not parts.hostname or not port_is_a_number or "@" in parts.netloc:
        raise UnsafeAddressError(
            f"the address {url!r}",
            required="http:// or https:// with a host, and no user or password in it",
            next_step="check the repository's address",
        )
    return parts


def _redirected(url: str, location: str | None) -> str:
    """Return where a redirect leads. Raises UnsafeAddressError where it leaves the scheme."""
    to = urljoin(url, location or "")
    if check_address(to).scheme != urlsplit(url).scheme:
        raise UnsafeAddressError(
            f"{url}: redirected to {to}",
            required=f"a redirect that stays with {urlsplit(url).scheme}",
            next_step="give the repository's final address",
        )
    return to


def _request_target(url: str, connection: http.client.HTTPConnection) -> str:
    """Return what stands in the request line: the path, or for an HTTP proxy the whole address."""
    parts = urlsplit(url)
    behind_proxy = parts.scheme == "http" and connection.host != parts.hostname
    return f"http://{parts.netloc}{_path(url)}" if behind_proxy else _path(url)


def _path(url: str) -> str:
    """Return the path with its query. What is percent-encoded already stays so; what no address holds is encoded."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe=IN_PATH)
    if parts.query:
        path += f"?{quote(parts.query, safe=IN_PATH + '?')}"
    return path


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for an address (http_proxy, https_proxy, no_proxy)."""
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    found = getproxies().get(parts.scheme)
    if not found or host == "localhost" or proxy_bypass(host):
        return None
    return check_address(found if "://" in found else f"http://{found}")


class _GuardedReader(io.RawIOBase):
    """The receiving side of a socket: no wait is longer than the guard's patience, every byte is counted."""

    def __init__(self, sock: socket.socket, guard: Guard) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until this is closed
        self._guard = guard

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._sock.settimeout(self._guard.patience_s())
        try:
            received = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise self._guard.too_slow() from error
        self._guard.count(received or 0)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _GuardedSocket:
    """What `HTTPResponse` needs of a socket."""

    def __init__(self, sock: socket.socket, guard: Guard) -> None:
        self._sock = sock
        self._guard = guard

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_GuardedReader(self._sock, self._guard), CHUNK)


def _under(guard: Guard) -> Callable[..., http.client.HTTPResponse]:
    def read(sock: socket.socket, method: str | None = None) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_GuardedSocket(sock, guard), method=method)  # type: ignore[arg-type]

    return read


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn the standard library's errors into ours."""
    try:
        yield
    except TransferError:
        raise
    except http.client.IncompleteRead as error:
        raise _truncated(url, "some bytes") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise UnreachableError(
            f"{url}: {str(error) or type(error).__name__}",
            required="a server that answers in HTTP",
            next_step="check the network and the address; the device tries again",
        ) from error


def _truncated(url: str, missing: str) -> TruncatedError:
    return TruncatedError(
        f"{url}: the connection ended {missing} too soon",
        required="as many bytes as the server promised",
        next_step="try again: what came is kept and resumed",
    )


def _seconds(text: str) -> float | None:
    """Return the seconds of a Retry-After header; its other form, a date, is left to the next poll."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
