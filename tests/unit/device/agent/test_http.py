"""The local interface: what a client may send, how slowly, and how much."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.contracts.rollout import Release
from edgewise.device.agent import http_
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.http_ import LocalServer
from edgewise.device.agent.serving import Declared, Model, Serving
from edgewise.device.agent.settings import parse_listen
from edgewise.device.slots import Place, Slot
from edgewise.device.uplink.collector import Collector, Reporter
from edgewise.device.uplink.dating import Dating
from edgewise.errors import ConfigError
from tests.faults.device.bundles import real, sample

JSON, NPZ, RAW = "application/json", "application/x-npz", "application/octet-stream"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "b").write_bytes(real("1.2.0"))
    with Bundle.open(folder / "b") as bundle:
        bundle.extract(folder / "files")
    slot = Slot(place=Place.A, release=Release(product="kws", version="1.2.0", digest="0" * 64), sha256="0" * 64)
    made = Serving(Counts(Collector(Reporter(device="d", device_class="c", boot="b"), Dating())))
    made.swap(Model.open(slot, folder / "files", Declared()))
    return made


@pytest.fixture
def port(serving: Serving) -> Iterator[int]:
    listen = parse_listen("127.0.0.1:0")
    with LocalServer(listen, serving, lambda: msgspec.UNSET, request_mib=1, connections=2) as server:  # type: ignore[arg-type,return-value]  # no status is asked for
        yield server.listen.port


def post(port: int, body: bytes, kind: str, query: str = "", **headers: str) -> tuple[int, bytes, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", f"/v1/infer{query}", body, {"Content-Type": kind, **headers})
        with connection.getresponse() as reply:
            return reply.status, reply.read(), reply.getheader("Edgewise-Outcome") or ""


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def test_one_input_in_three_forms_is_one_answer(port: int) -> None:
    status, body, _ = post(port, json.dumps({"inputs": {"x": sample().tolist()}, "deadline_ms": 5000}).encode(), JSON)
    assert status == 200
    document = json.loads(body)
    assert document["outcome"]["kind"] == "local"
    answer = np.array(document["outputs"]["y"], np.float32)
    status, body, outcome = post(port, npz(x=sample()), NPZ, Accept=NPZ)
    assert (status, json.loads(outcome)["kind"]) == (200, "local")
    assert np.array_equal(np.load(io.BytesIO(body))["y"], answer)
    status, body, _ = post(port, sample().tobytes(), RAW, Accept=RAW)
    assert np.array_equal(np.frombuffer(body, np.float32).reshape(1, 2), answer)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b"[" * 100_000, JSON),
        (b'{"inputs": {}}', JSON),
        (b'{"inputs": {"z": [[1, 2, 3, 4]]}}', JSON),
        (b'{"inputs": {"x": [[1, 2, 3]]}}', JSON),
        (b'{"inputs": {"x": [[1, 2], [3, 4, 5]]}}', JSON),
        (b'{"inputs": {"x": [["1", "2", "3", "4"]]}}', JSON),
        (b'{"inputs": {"x": [[1, 2, 3, 4]]}, "deadlin_ms": 5}', JSON),
        (b'{"inputs": {"x": ' + b"[" * 400 + b"]" * 400 + b"}}", JSON),
        (b"PK\x03\x04 and no more", NPZ),
        (npz(x=np.zeros((1, 4), np.float64)), NPZ),
        (npz(x=np.zeros((1, 5), np.float32)), NPZ),
        (npz(x=np.zeros((1, 4), np.float32), y=np.zeros(1)), NPZ),
        (npz(x=np.zeros((50_000_000,), np.float32)), NPZ),
        (b"123", RAW),
        (b"x=1", "application/x-www-form-urlencoded"),
    ],
)
def test_wrong_inputs_are_refused_and_say_why(port: int, body: bytes, kind: str) -> None:
    status, found, _ = post(port, body, kind)
    outcome = json.loads(found)["outcome"]
    assert (status, outcome["kind"]) == (400, "refused")
    assert "required" in outcome["reason"]


def test_no_time_is_a_refusal(port: int) -> None:
    status, body, _ = post(port, sample().tobytes(), RAW, "?deadline_ms=0")
    assert (status, json.loads(body)["outcome"]["kind"]) == (503, "refused")
    assert post(port, sample().tobytes(), RAW, "?deadline_ms=soon")[0] == 400


def test_a_body_is_refused_by_its_length_before_it_is_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /v1/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        assert b" 413 " in client.recv(4096)


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: x", "A: b"])
def test_a_body_of_unknown_length_is_refused(port: int, header: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"POST /v1/infer HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
        assert b" 411 " in client.recv(4096)


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Host": "evil.example:80"}])
def test_a_web_page_is_not_answered(port: int, header: dict[str, str]) -> None:
    assert post(port, sample().tobytes(), RAW, **header)[0] == 403


def test_a_request_that_trickles_is_ended_and_its_place_is_free_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_, "REQUEST_S", 0.5)
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
    try:
        for each in clients:
            each.sendall(b"POST /v1/infer HTTP/1.1\r\nA: ")
        time.sleep(0.2)
        assert post_or_busy(port) == 503  # both places are taken
        until, answer = time.monotonic() + 20, 503
        while answer != 200 and time.monotonic() < until:
            for each in clients:
                each_byte(each)
            answer = post_or_busy(port)
        assert answer == 200
    finally:
        for each in clients:
            each.close()


def each_byte(client: socket.socket) -> None:
    """Send one more byte, to seem alive."""
    try:
        client.sendall(b"a")
    except OSError:
        return


def post_or_busy(port: int) -> int:
    try:
        return post(port, sample().tobytes(), RAW)[0]
    except (OSError, http.client.HTTPException):
        return 503


def test_a_socket_that_a_killed_agent_left_is_taken_over_and_nothing_else(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    listen = parse_listen(f"unix:{path}")
    with LocalServer(listen, serving, lambda: msgspec.UNSET, request_mib=1, connections=2):  # type: ignore[arg-type,return-value]  # no status is asked for
        assert path.is_socket()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        LocalServer(listen, serving, lambda: msgspec.UNSET, request_mib=1, connections=2)  # type: ignore[arg-type,return-value]  # it does not come to that
    assert path.read_text() == "mine"
