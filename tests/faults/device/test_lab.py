"""The lab of an agent over real sockets, with real child processes: what it measures, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
import pytest

from edgewise.contracts.lab import FEEDS, LAB_PATH, QUESTION, LabAnswer, LabQuestion, Measure
from edgewise.contracts.project import Effort, TargetConfig
from edgewise.contracts.target import RuntimeName
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.http_ import LocalServer
from edgewise.device.agent.lab import Bench
from edgewise.device.agent.serving import Serving
from edgewise.device.agent.settings import Lab, Listen
from edgewise.device.uplink.collector import Collector, Reporter
from edgewise.device.uplink.dating import Dating
from edgewise.errors import ConfigError, ExecutionError, HttpStatusError, UnreachableError
from edgewise.forge.measure.agent_lab import AgentLab, LabRuntime
from edgewise.forge.optimize import optimize
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from edgewise.runtimes.timing import Plan
from tests.unit.forge.children import demo_project, small_demo
from tests.unit.runtimes.models import conv_relu_add

TOKEN = "correct-horse"  # noqa: S105 - a test's own
WHERE = RuntimeName.ONNXRUNTIME
FEED = [{"x": np.ones((1, 3, 16, 16), np.float32)}]
MODEL = conv_relu_add().SerializeToString()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the address of a local server with a lab, and the agent's folder."""
    settings = Lab(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), request_mib=4, timeout_s=60)
    counts = Counts(Collector(Reporter(device="d", device_class="c", boot="b"), Dating()))
    server = LocalServer(
        Listen(host="127.0.0.1"),
        Serving(counts),
        lambda: pytest.fail("nobody asks for the status"),
        request_mib=1,
        connections=4,
        lab=Bench(tmp_path, settings),
    )
    with server:
        yield f"http://{server.listen}", tmp_path


def test_times_kernels_and_memory_come_from_the_device(lab: tuple[str, Path], tmp_path: Path) -> None:
    device = AgentLab(lab[0], TOKEN)
    assert device.about.versions.startswith("edgewise ")
    broken = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Nonsense", ["x"], ["y"])],
            "broken",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
        )
    ).SerializeToString()
    timed = device.time(
        {"fp32": (WHERE, MODEL), "the same": (WHERE, MODEL), "broken": (WHERE, broken)},
        FEED,
        threads=1,
        plan=Plan(rounds=12, budget_s=60, precision=0.0),
    )
    assert {len(each.rounds_ms) for each in timed.times.values()} == {12}
    assert {len(each.busy_ms) for each in timed.times.values()} == {12}
    assert (set(timed.times), set(timed.failures)) == ({"fp32", "the same"}, {"broken"})
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    assert 0 < device.peak_mib((WHERE, path), FEED, threads=1) < 500
    remote, here = LabRuntime(OnnxRuntime(), device), OnnxRuntime()
    kinds = [[each.kind for each in one.profile(MODEL, tuple(FEED), rounds=5)] for one in (remote, here)]
    assert kinds[0] == kinds[1]
    assert remote.version() != here.version()
    with pytest.raises(ExecutionError):
        device.time({"fp32": (WHERE, broken)}, FEED, threads=1, plan=Plan())
    assert list((lab[1] / "lab").iterdir()) == []


def test_a_search_here_takes_its_figures_from_the_device(
    lab: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    device = AgentLab(lab[0], TOKEN)
    asked: list[Measure] = []
    real = device.ask

    def noted(question: LabQuestion, *arguments: Any) -> LabAnswer:
        asked.append(question.measure)
        found = real(question, *arguments)
        if question.measure is Measure.MEMORY:  # a figure that this machine would not find
            found = msgspec.structs.replace(found, peak_bytes=777 << 20)
        return found

    monkeypatch.setattr(device, "ask", noted)
    (tmp_path / "data").mkdir()
    small_demo(tmp_path / "data")
    run = optimize(demo_project(Effort.FAST), base=tmp_path / "data", output=tmp_path / "run", lab=device)
    assert run.chosen is not None
    assert run.target == device.name
    assert run.reference.peak_memory_mib == 777
    assert run.chosen.energy_mj is None
    assert {Measure.PROFILE, Measure.TIME, Measure.MEMORY} <= set(asked)
    assert any("were measured by agent" in note for note in run.notes)


def test_several_runtimes_are_refused_before_anything_is_measured(
    lab: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = AgentLab(lab[0], TOKEN)
    monkeypatch.setattr(device, "ask", lambda *_: pytest.fail("it was asked"))
    (tmp_path / "data").mkdir()
    small_demo(tmp_path / "data")
    target = TargetConfig(runtimes=(RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO))
    project = msgspec.structs.replace(demo_project(Effort.FAST), target=target)
    with pytest.raises(ConfigError, match="onnxruntime, openvino together with --on"):
        optimize(project, base=tmp_path / "data", output=tmp_path / "run", lab=device)


def archive(question: LabQuestion | bytes, files: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(QUESTION, question if isinstance(question, bytes) else msgspec.json.encode(question))
        for name, data in files.items():
            out.writestr(name, data)
    return body.getvalue()


ASKED = LabQuestion(measure=Measure.MEMORY, models=("m0",), names=(("x",),))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no archive", 400),
        (archive(b"{", {FEEDS: b""}), 400),
        (archive(b'{"measure":"everything"}', {FEEDS: b""}), 400),
        (archive(msgspec.json.encode({"measure": "time", "models": ["../../etc/cron"]}), {FEEDS: b""}), 400),
        (archive(ASKED, {FEEDS: b""}), 400),
        (archive(ASKED, {FEEDS: b"", "m0.onnx": MODEL, "../escaped": b"x"}), 400),
        (archive(ASKED, {FEEDS: b"", "m0.onnx": bytes(64 << 20)}), 400),
        (archive(ASKED, {"m0.onnx": MODEL}), 400),
        (archive(msgspec.json.encode({"measure": "time", "budget_s": 1e9}), {FEEDS: b""}), 400),
        (bytes(5 << 20), 413),
    ],
)
def test_what_is_no_question_is_refused_and_leaves_nothing(lab: tuple[str, Path], body: bytes, status: int) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(lab[0] + LAB_PATH, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    folder = lab[1] / "lab"
    assert not folder.exists() or list(folder.iterdir()) == []
    assert not (lab[1] / "escaped").exists()


@pytest.mark.parametrize("data", [b"", b"no npz", None])
def test_what_only_the_child_can_see_is_its_problem(lab: tuple[str, Path], data: bytes | None) -> None:
    feeds = io.BytesIO()
    np.savez(feeds, np.ones(3), np.ones(3))
    files = {FEEDS: feeds.getvalue() if data is None else data, "m0.onnx": MODEL}
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(lab[0] + LAB_PATH, content=archive(ASKED, files), headers=headers, timeout=60)
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=LabAnswer).problem


def test_without_the_token_or_without_a_lab_nothing_is_measured(lab: tuple[str, Path]) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
        assert httpx.post(lab[0] + LAB_PATH, content=b"", headers=headers).status_code == 401
    with pytest.raises(HttpStatusError, match="401"):
        AgentLab(lab[0], "wrong")
    for url in ("https://127.0.0.1:1", "unix:/run/agent.sock", "127.0.0.1:8750"):
        with pytest.raises(ConfigError, match="ssh -L"):
            AgentLab(url, TOKEN)
    with pytest.raises(ConfigError, match="EDGEWISE_LAB_TOKEN"):
        AgentLab(lab[0], "")
    with pytest.raises(UnreachableError):
        AgentLab("http://127.0.0.1:1", TOKEN)


def test_a_second_measurement_is_turned_away_while_one_is_under_way(lab: tuple[str, Path]) -> None:
    host, _, port = lab[0].removeprefix("http://").rpartition(":")
    head = f"POST {LAB_PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(head.encode())
        while not (lab[1] / "lab").is_dir() or not list((lab[1] / "lab").iterdir()):
            threading.Event().wait(0.01)
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.post(lab[0] + LAB_PATH, content=b"x", headers=headers).status_code == 409


def test_a_model_that_takes_too_much_ends_its_own_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Lab(token_sha256="0" * 64, memory_mib=64, timeout_s=60))
    feeds = io.BytesIO()
    np.savez(feeds, FEED[0]["x"])
    body = archive(ASKED, {FEEDS: feeds.getvalue(), "m0.onnx": MODEL})
    found = bench.measure(io.BufferedReader(io.BytesIO(body)), len(body))
    assert isinstance(found, bytes)
    assert msgspec.json.decode(found, type=LabAnswer).problem
    assert os.listdir(tmp_path / "lab") == []  # noqa: PTH208 - whatever its name
