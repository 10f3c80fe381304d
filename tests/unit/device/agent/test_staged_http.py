"""A bundle of several stages over the local interface: what a gate kept out, streams, and requests side by side."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgewise.bundle.read import Bundle
from edgewise.contracts.rollout import Release
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.http_ import LocalServer
from edgewise.device.agent.serving import Declared, Model, Serving
from edgewise.device.agent.settings import parse_listen
from edgewise.device.slots import Place, Slot
from edgewise.device.uplink.collector import Collector, Reporter
from edgewise.device.uplink.dating import Dating
from tests.unit.bundle.staged import LOUD, QUIET, joined

SLOT = Slot(place=Place.A, release=Release(product="kws", version="1.0.0", digest="0" * 64), sha256="0" * 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("voice")
    with Bundle.open(joined(place)[0]) as bundle:
        bundle.extract(place / "files")
    return place / "files"


@pytest.fixture
def serving(folder: Path) -> Iterator[Serving]:
    made = Serving(Counts(Collector(Reporter(device="d", device_class="c", boot="b"), Dating())))
    made.swap(Model.open(SLOT, folder, Declared()))
    yield made
    made.close(5.0)


@pytest.fixture
def port(serving: Serving) -> Iterator[int]:
    listen = parse_listen("127.0.0.1:0")
    with LocalServer(listen, serving, lambda: msgspec.UNSET, request_mib=1, connections=8) as server:  # type: ignore[arg-type,return-value]  # no status is asked for
        yield server.listen.port


def ask(port: int, values: dict[str, Any], query: str = "") -> tuple[int, dict[str, Any]]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(
            "POST", f"/v1/infer{query}", json.dumps({"inputs": values}), {"Content-Type": "application/json"}
        )
        with connection.getresponse() as reply:
            return reply.status, json.loads(reply.read())


def test_an_item_is_a_request_and_a_stream_goes_on_until_a_new_one(port: int) -> None:
    quiet, loud = {"sound": QUIET.tolist()}, {"sound": LOUD.tolist()}
    status, first = ask(port, quiet)
    assert (status, [*first["outputs"]]) == (200, ["listener.level"])
    assert ask(port, loud)[1]["outputs"]["listener.level"] == pytest.approx([0.7])
    assert ask(port, quiet, "?stream=new")[1]["outputs"]["listener.level"] == pytest.approx([0.1])
    status, wrong = ask(port, {"x": QUIET.tolist()})
    assert (status, wrong["outcome"]["kind"]) == (400, "refused")
    status, late = ask(port, loud, "?deadline_ms=0.001")
    assert (status, late["outcome"]["kind"]) == (503, "refused")


def test_what_a_gate_keeps_out_whole_is_an_answer_without_outputs(tmp_path: Path) -> None:
    path, _ = joined(tmp_path, changes=('["listener.level", "head.scores"]', '["head.scores"]'))
    with Bundle.open(path) as bundle:
        bundle.extract(tmp_path / "files")
    made = Serving(Counts(Collector(Reporter(device="d", device_class="c", boot="b"), Dating())))
    made.swap(Model.open(SLOT, tmp_path / "files", Declared()))
    listen = parse_listen("127.0.0.1:0")
    with LocalServer(listen, made, lambda: msgspec.UNSET, request_mib=1, connections=8) as server:  # type: ignore[arg-type,return-value]  # as above
        status, found = ask(server.listen.port, {"sound": QUIET.tolist()})
    made.close(5.0)
    assert (status, found["outcome"]["kind"], found["outputs"]) == (200, "local", {})


def test_no_request_is_lost_while_another_bundle_takes_over(serving: Serving, port: int, folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, port, {"sound": LOUD.tolist()}) for _ in range(40)]
        serving.swap(Model.open(SLOT, folder, Declared()))
        answers = [each.result() for each in asked]
    assert {status for status, _ in answers} == {200}
