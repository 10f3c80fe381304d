"""HTTP for applications on the same device: over a Unix socket, or a port that only this device reaches.

    POST /v1/infer    JSON, npz or the bytes of one tensor; every answer carries its outcome
    POST /v1/lab      a measurement for a workstation, where agent.toml allows it (`lab`)
    GET  /v1/status   what `edgewise agent status --json` shows
    GET  /metrics     for Prometheus

One thread per connection, at most as many as the settings say. A request must be there, headers and body, within
`REQUEST_S` of its first byte however it trickles; a body is refused by its length before it is read. On a port,
requests that a browser sends for a web page (`Origin`, another `Host`) are refused: any page could send them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import socketserver
import stat
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import msgspec

from edgewise import __version__
from edgewise.contracts.lab import LAB_PATH
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.agent import status as statuses
from edgewise.device.agent.lab import UPLOAD_S, Bench, Refused
from edgewise.device.agent.serving import Serving
from edgewise.device.agent.settings import MIB, Listen
from edgewise.device.agent.status import Status
from edgewise.device.agent.tensors import JSON, NPZ, RAW, decode, to_lists, to_npz
from edgewise.device.runtime import Answer
from edgewise.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

REQUEST_S = 10.0
IDLE_S = 60.0
"""A connection on which nothing is asked for so long is closed."""
OUTCOME = "Edgewise-Outcome"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
TEXT = "text/plain; version=0.0.4"

log = logging.getLogger("edgewise.agent")


class LocalServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers local applications with what `serving` holds."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        listen: Listen,
        serving: Serving,
        status: Callable[[], Status],
        *,
        request_mib: int,
        connections: int,
        lab: Bench | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen. Raises ConfigError where the address cannot be had."""
        self.serving = serving
        self.status = status
        self.lab = lab
        self.clock = clock
        self.most_bytes = request_mib * MIB
        self.is_port = not listen.path
        self._free = threading.BoundedSemaphore(connections)
        self._path = Path(listen.path) if listen.path else None
        self.address_family = (
            socket.AF_UNIX if listen.path else socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        )
        try:
            if self._path is not None:
                _make_way(self._path)
            address: Any = listen.path or (listen.host, listen.port)
            super().__init__(address, _Handler)
            if self._path is not None:
                self._path.chmod(0o660)
        except OSError as error:
            raise ConfigError(
                f"{listen} cannot be listened on: {error.strerror or error}",
                required="a path that can be written, or a free port of a loopback address",
                next_step="choose another --listen",
            ) from error
        port = listen.port or (0 if self._path else self.server_address[1])
        self.listen = msgspec.structs.replace(listen, port=int(port))
        """Where it really listens: with the port that port 0 became."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread, or turn it away where there are too many."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(1.0)
                request.sendall(BUSY)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer on a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Say that a request ended in an error; a client that went away is none."""
        log.warning("a local request failed", extra={"reason": repr(sys.exception())})

    def __enter__(self) -> Self:
        """Answer in a thread until the block ends."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Take no more connections."""
        self.shutdown()
        self.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Timed(io.RawIOBase):
    """The receiving side: waits `IDLE_S` for a request, and `REQUEST_S` for all of it from its first byte."""

    def __init__(self, connection: socket.socket, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self.since_s: float | None = None
        """When the first byte of the request came."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        wait = IDLE_S if self.since_s is None else self.since_s + REQUEST_S - self._clock()
        if wait <= 0:
            raise TimeoutError("the request was not there in time")
        self._connection.settimeout(wait)
        received = self._connection.recv_into(buffer)
        if self.since_s is None:
            self.since_s = self._clock()
        return received


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"edgewise/{__version__}"
    sys_version = ""
    wbufsize = 1 << 16  # status, headers and body leave together
    server: LocalServer

    def setup(self) -> None:
        super().setup()
        if self.server.is_port:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timed = _Timed(self.connection, self.server.clock)
        self.rfile = io.BufferedReader(self._timed, 1 << 16)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True
        self._timed.since_s = None

    def do_GET(self) -> None:
        if self._from_a_browser():
            return
        path = urlsplit(self.path).path
        if path == "/v1/status":
            self._send(200, msgspec.json.encode(self.server.status()), JSON)
        elif path == "/metrics":
            self._send(200, statuses.metrics(self.server.status()).encode(), TEXT)
        else:
            self._problem(405 if path == "/v1/infer" else 404, f"GET {path[:100]}", "GET /v1/status or /metrics")

    def do_POST(self) -> None:
        if self._from_a_browser():
            return
        parts = urlsplit(self.path)
        if parts.path == LAB_PATH and self.server.lab is not None:
            self._measure(self.server.lab)
            return
        if parts.path != "/v1/infer":
            self.close_connection = True  # its body is not read
            self._problem(404, f"POST {parts.path[:100]}", "POST /v1/infer")
            return
        length = self._length(self.server.most_bytes)
        body = None if length is None else self._body(length)
        if body is None:
            return
        arrived_s = self._timed.since_s or self.server.clock()
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        model = self.server.serving.model
        if model is None:
            self._outcome(503, self.server.serving.refuse("no bundle is installed yet"))
            return
        try:
            inputs, deadline_ms = decode(body, kind, model.specs)
            deadline_ms = _deadline(parts.query) if deadline_ms is None else deadline_ms
        except DataError as error:
            words = f"{error.found}; required: {error.required}"
            self._outcome(400, self.server.serving.refuse(words))
            return
        until_s = None if deadline_ms is None else arrived_s + deadline_ms / 1000
        begins = parse_qs(parts.query).get("stream", [""])[-1] == "new"
        self._answer(self.server.serving.infer(inputs, until_s=until_s, begins=begins))

    def _answer(self, answer: Answer) -> None:
        if answer.outcome.kind is OutcomeKind.REFUSED:
            self._outcome(503, answer.outcome)
            return
        wanted = self.headers.get("Accept", "")
        more = {OUTCOME: msgspec.json.encode(answer.outcome).decode()}
        if NPZ in wanted:
            self._send(200, to_npz(answer.outputs), NPZ, more)
        elif RAW in wanted and len(answer.outputs) == 1:
            self._send(200, next(iter(answer.outputs.values())).tobytes(), RAW, more)
        else:
            document = {"outcome": answer.outcome, "outputs": to_lists(answer.outputs)}
            self._send(200, msgspec.json.encode(document), JSON)

    def _measure(self, lab: Bench) -> None:
        """Answer a workstation; the connection is closed after what was refused unread."""
        if not lab.admits(self.headers.get("Authorization", "")):
            self.close_connection = True
            self._problem(401, "a measurement without the token", "the token of [lab] in agent.toml")
            return
        length = self._length(lab.most_bytes)
        if length is None:
            return
        self._timed.since_s = self.server.clock() + UPLOAD_S - REQUEST_S
        found = lab.measure(self.rfile, length)
        if isinstance(found, Refused):
            self.close_connection = True
            self._problem(*found)
        else:
            self._send(200, found, JSON)

    def _length(self, most_bytes: int) -> int | None:
        """Return the length of the body; None where it was refused, which has been answered."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 16) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._problem(411, "a body of unknown length", "Content-Length")
            return None
        if int(length) > most_bytes:
            self.close_connection = True
            self._problem(413, f"a body of {length} bytes", f"at most {most_bytes} bytes")
            return None
        return int(length)

    def _body(self, length: int) -> bytes | None:
        """Return the body; None where it ended too soon."""
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        return body

    def _from_a_browser(self) -> bool:
        """Answer and return True where a web page may have sent the request."""
        if not self.server.is_port:
            return False
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if "Origin" not in self.headers and host in {"127.0.0.1", "localhost", "[::1]", self.server.listen.host}:
            return False
        self.close_connection = True
        self._problem(403, "a request of a web page", "a request of a local application")
        return True

    def _outcome(self, status: int, outcome: Outcome) -> None:
        self._send(status, msgspec.json.encode({"outcome": outcome, "outputs": {}}), JSON)

    def _problem(self, status: int, found: str, required: str) -> None:
        self._send(status, msgspec.json.encode({"found": found, "required": required}), JSON)

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: applications ask many times a second."""


def _deadline(query: str) -> float | None:
    """Return the deadline in a query. Raises DataError."""
    text = parse_qs(query).get("deadline_ms", [None])[-1]
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"deadline_ms={text[:40]}", required="a number of milliseconds") from error


def _make_way(path: Path) -> None:
    """Take away the socket that an agent which was killed has left. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(17, "it is there, and is no socket")
        path.unlink()
