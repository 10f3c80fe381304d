"""A cloud server in a process of its own, good or bad as it is told: `python cloud_server.py`, prints its port.

`POST /control` with `{"mode": M}` changes what it does, and answers with the number of calls and the last one.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATE: dict[str, Any] = {"mode": "good", "calls": 0, "headers": {}, "body": ""}


def chat(content: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }


def tensor(values: list[float], shape: list[int] | None = None) -> dict[str, Any]:
    data = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return {"name": "y", "dtype": "float32", "shape": shape or [1, len(values)], "data": data}


def outputs(*tensors: dict[str, Any]) -> dict[str, Any]:
    return {"format_version": 1, "outputs": list(tensors)}


ANSWERS: dict[str, tuple[Any, Any]] = {
    "good": (chat('{"label": "stop"}'), outputs(tensor([0.0, 5.0, 0.0]))),
    "wrong_schema": ({"choices": [{"text": "stop"}]}, {"outputs": [[0.0, 5.0, 0.0]]}),
    "wrong_label": (chat('{"label": "sleep"}'), outputs({**tensor([0.0, 5.0, 0.0]), "name": "z"})),
    "prose": (chat("I would say: stop"), outputs({**tensor([0.0, 5.0, 0.0]), "data": "not base64!"})),
    "cut_off": (chat('{"label": "stop"}', "length"), outputs({**tensor([0.0, 5.0, 0.0]), "dtype": "float64"})),
    "empty": ({"choices": []}, outputs()),
    "nan": (chat('{"label": NaN}'), outputs(tensor([0.0, float("nan"), 0.0]))),
    "wrong_shape": (chat('{"label": ["stop"]}'), outputs(tensor([0.0, 5.0, 0.0], [3, 1]))),
    "short": (chat('{"label": "stop", "why": 1}'), outputs(tensor([0.0, 5.0], [1, 3]))),
    "nested": (chat("[" * 100_000), {"format_version": 1, "outputs": "x"}),
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/control":
            STATE["mode"] = json.loads(body).get("mode", STATE["mode"])
            self.reply(json.dumps(STATE).encode())
            return
        STATE["calls"] += 1
        STATE["headers"], STATE["body"] = dict(self.headers), body.decode()
        mode = STATE["mode"]
        if mode in ANSWERS:
            self.reply(json.dumps(ANSWERS[mode][0 if self.path.endswith("/chat/completions") else 1]).encode())
        else:
            getattr(self, mode)()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def slow(self) -> None:
        time.sleep(20)

    def trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(400):
            self.wfile.write(b" ")
            time.sleep(0.05)

    def huge(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b" " * 65536)

    def headers_without_end(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"X-More: 1\r\n")

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def truncated(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices"')

    def not_http(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n")

    def bad_json(self) -> None:
        self.reply(b'{"choices": [')

    def not_text(self) -> None:
        self.reply(b"\xff\xfe\x00")

    def status_500(self) -> None:
        self.reply(b"oops", 500)

    def status_401(self) -> None:
        self.reply(b"no", 401)

    def status_204(self) -> None:
        self.reply(b"", 204)

    def status_302(self) -> None:
        self.reply(b"", 302, Location="/elsewhere")

    def status_429(self) -> None:
        self.reply(b"later", 429, Retry_After="1")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has gone is what is tested."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
