"""The cloud rung against a server in a process of its own, which is slow, failing, malformed or absent."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device import Answer, Runtime
from edgewise.device.fallback.breaker import BreakerRules, BreakerState
from edgewise.device.fallback.bucket import BucketRules
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import CloudOptions, CloudProtocol, FallbackOptions
from tests.unit.device.bundles import CALIBRATION, LABELS, SURE, UNSURE, extracted

DEADLINE_MS, RESERVE_MS = 2500.0, 1500.0
"""Generous on purpose: a busy machine wakes a thread late."""
KEY = "sk-test-0123456789"
SLOW = ("slow", "trickle")
BROKEN = ("huge", "headers_without_end", "reset", "hang_up", "truncated", "not_http", "bad_json", "not_text")
STATUS = ("status_500", "status_401", "status_204", "status_302", "status_429")
WRONG = ("wrong_schema", "wrong_label", "prose", "cut_off", "empty", "nan", "wrong_shape", "short", "nested")
NEVER = BreakerRules(failures=1000)


class Server:
    """The server's process, seen from outside."""

    def __init__(self, port: int) -> None:
        self.port = port

    def control(self, mode: str | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/control", json.dumps({} if mode is None else {"mode": mode}))
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    @property
    def calls(self) -> int:
        return int(self.control()["calls"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    script = Path(__file__).with_name("cloud_server.py")
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        yield Server(int(process.stdout.readline()))
        process.kill()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(tmp_path_factory.mktemp("bundle"))


def opened(bundle: Path, server: Server, **options: Any) -> Runtime:
    options = {"model": "judge", "consent": True, "reserve_ms": RESERVE_MS, "breaker": NEVER, **options}
    url = f"http://127.0.0.1:{server.port}/v1"
    declared = Conservative(label="stop")
    return Runtime.open(bundle, fallback=FallbackOptions(cloud=CloudOptions(url=url, **options), conservative=declared))


def settled(runtime: Runtime) -> None:
    """Wait until no call is under way: it is given no more time than the inference had."""
    assert runtime.cloud is not None
    end = time.monotonic() + 20
    while runtime.cloud.is_busy and time.monotonic() < end:
        time.sleep(0.01)
    assert not runtime.cloud.is_busy


def assert_local_and_in_time(answer: Answer, reason: str) -> None:
    assert answer.outcome.kind is OutcomeKind.LOCAL
    assert answer.outcome.slack_ms is not None
    assert answer.outcome.slack_ms >= 0
    assert answer.outcome.reason == f"unsure; cloud: {reason}"
    assert np.array_equal(answer.outputs["y"], UNSURE["x"].reshape(1, 3))


def reason_of(mode: str) -> str:
    if mode.startswith("status_"):
        return mode.replace("_", " ")
    if mode in SLOW:
        return "too slow"
    return (
        "unreachable"
        if mode in {"reset", "hang_up", "truncated", "not_http", "headers_without_end"}
        else "a malformed answer"
    )


@pytest.mark.parametrize("protocol", CloudProtocol)
@pytest.mark.parametrize("mode", [*SLOW, *BROKEN, *STATUS, *WRONG])
def test_a_bad_server_never_makes_a_local_answer_late(
    server: Server, bundle: Path, mode: str, protocol: CloudProtocol
) -> None:
    runtime = opened(bundle, server, protocol=protocol)
    before = int(server.control(mode)["calls"])
    deadline_ms = DEADLINE_MS if mode in SLOW else 60_000.0
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=deadline_ms), reason_of(mode))
    settled(runtime)
    assert server.calls > before
    _, counters = runtime.tally.drain()
    assert counters["cloud_failures"] == counters["cloud_calls"] >= 1
    server.control("good")
    expected = OutcomeKind.LOCAL if mode == "status_429" else OutcomeKind.CLOUD  # which asked to be left alone
    assert runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.kind is expected


def test_an_absent_server_never_makes_a_local_answer_late(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        runtime = opened(bundle, Server(taken.getsockname()[1]))
        assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=DEADLINE_MS), "unreachable")


@pytest.mark.parametrize("protocol", CloudProtocol)
def test_a_good_server_answers_for_an_unsure_model_and_only_then(
    server: Server, bundle: Path, protocol: CloudProtocol
) -> None:
    server.control("good")
    runtime = opened(bundle, server, protocol=protocol)
    before = server.calls
    sure = runtime.infer(SURE, deadline_ms=60_000.0)
    assert (sure.outcome.kind, sure.outcome.reason, server.calls) == (OutcomeKind.LOCAL, "", before)
    answer = runtime.infer(UNSURE, deadline_ms=60_000.0)
    assert (answer.outcome.kind, answer.outcome.reason) == (OutcomeKind.CLOUD, "unsure")
    assert (answer.outcome.variant, answer.outcome.bundle) == (None, None)
    assert answer.outputs["y"].shape == (1, 3)
    assert answer.outputs["y"].dtype == np.float32
    assert LABELS[int(answer.outputs["y"].argmax())] == "stop"
    assert server.calls == before + 1
    assert runtime.infer(UNSURE).outcome.kind is OutcomeKind.CLOUD


def test_no_call_is_made_without_consent(server: Server, bundle: Path) -> None:
    server.control("good")
    runtime = opened(bundle, server, consent=False)
    before = server.calls
    for _ in range(5):
        assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "no consent")
    assert server.calls == before
    assert runtime.cloud is not None
    runtime.cloud.consent = True
    assert runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.kind is OutcomeKind.CLOUD
    runtime.cloud.consent = False
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "no consent")
    assert server.calls == before + 1


def test_consent_is_asked_again_before_anything_is_sent(
    server: Server, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.control("good")
    runtime = opened(bundle, server)
    cloud = runtime.cloud
    assert cloud is not None
    real = cloud.exchange.body

    def withdrawn(*arguments: Any) -> bytes:
        cloud.consent = False  # between the decision and the call
        return real(*arguments)

    monkeypatch.setattr(cloud.exchange, "body", withdrawn)
    before = server.calls
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "consent was withdrawn")
    assert server.calls == before
    assert runtime.tally.drain()[1] == {}


def test_the_breaker_opens_and_closes(server: Server, bundle: Path) -> None:
    server.control("status_401")
    runtime = opened(bundle, server, breaker=BreakerRules(failures=3, rest_s=0.5), budget=BucketRules(burst=1000))
    cloud = runtime.cloud
    assert cloud is not None
    before = server.calls
    for _ in range(3):
        assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "status 401")
    opened_breaker = cloud.breaker_state
    assert opened_breaker in {BreakerState.OPEN, BreakerState.HALF_OPEN}
    server.control("good")
    end = time.monotonic() + 20
    while runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.kind is not OutcomeKind.CLOUD:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert cloud.breaker_state is BreakerState.CLOSED
    assert server.calls == before + 4


def test_a_server_that_asks_for_a_pause_gets_it(server: Server, bundle: Path) -> None:
    server.control("status_429")
    runtime = opened(bundle, server, breaker=BreakerRules(failures=1000, rest_s=60.0))
    before = server.calls
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "status 429")
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "the breaker is open")
    assert server.calls == before + 1


def test_the_budget_bounds_the_calls_repeats_included(server: Server, bundle: Path) -> None:
    server.control("status_500")
    runtime = opened(bundle, server, budget=BucketRules(burst=3, per_s=0.0))
    before = server.calls
    reasons = [runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.reason for _ in range(4)]
    assert reasons == [*["unsure; cloud: status 500"] * 2, *["unsure; cloud: no call is left in the budget"] * 2]
    assert server.calls == before + 3


def test_one_call_at_a_time(server: Server, bundle: Path) -> None:
    server.control("slow")
    runtime = opened(bundle, server, timeout_s=3.0)
    answer = runtime.infer(UNSURE, deadline_ms=DEADLINE_MS)
    assert_local_and_in_time(answer, "too slow")
    settled(runtime)
    assert runtime.cloud is not None
    # Name resolution knows no time limit: such a call is still under way when its inference is over.
    object.__setattr__(runtime.cloud, "_under_way", object())
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=60_000.0), "an earlier call is under way")


def test_with_little_time_left_no_call_is_made(server: Server, bundle: Path) -> None:
    server.control("good")
    runtime = opened(bundle, server, least_ms=59_000.0)
    before = server.calls
    assert_local_and_in_time(runtime.infer(UNSURE, deadline_ms=30_000.0), "no time left")
    assert server.calls == before


def test_what_is_sent_to_a_chat_server(
    server: Server, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server.control("good")
    (tmp_path / "key").write_text(f"{KEY}\n")
    with caplog.at_level(logging.DEBUG):
        runtime = opened(bundle, server, key_file=str(tmp_path / "key"))
        answer = runtime.infer({"x": np.round(UNSURE["x"])}, deadline_ms=60_000.0)
    seen = server.control()
    assert seen["headers"]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in seen["body"]
    body = json.loads(seen["body"])
    system, user = body["messages"]
    assert body["model"] == "judge"
    assert json.dumps(LABELS) in system["content"].replace('","', '", "')
    (part,) = user["content"]
    kind, _, data = part["image_url"]["url"].partition(",")
    assert (part["type"], kind) == ("image_url", "data:image/png;base64")
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == list(LABELS)
    told = caplog.text + "".join(capfd.readouterr()) + repr(vars(runtime.cloud)) + repr(answer.outcome)
    assert runtime.cloud is not None
    assert KEY not in told + repr(vars(runtime.cloud.exchange))


def test_originals_are_sent_as_they_are(server: Server, bundle: Path) -> None:
    server.control("good")
    runtime = opened(bundle, server)
    for original, expected in (
        ("what is it?", {"type": "text", "text": "what is it?"}),
        (b"\xff\xd8\xffjpeg", {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/anBlZw=="}}),
    ):
        assert runtime.infer(UNSURE, original=original).outcome.kind is OutcomeKind.CLOUD
        assert json.loads(server.control()["body"])["messages"][1]["content"] == [expected]
    before = server.calls
    for unfit in (b"GIF89a", "  "):
        assert runtime.infer(UNSURE, original=unfit).outcome.reason.startswith("unsure; cloud: the original is")
    assert server.calls == before


def test_what_is_sent_as_tensors(server: Server, bundle: Path) -> None:
    server.control("good")
    runtime = opened(bundle, server, protocol=CloudProtocol.JSON)
    runtime.infer(UNSURE, deadline_ms=60_000.0)
    body = json.loads(server.control()["body"])
    assert {**body, "inputs": None} == {
        "format_version": 1,
        "product": "kws",
        "bundle": runtime.bundle,
        "variant": "fp32",
        "inputs": None,
    }
    (tensor,) = body["inputs"]
    assert (tensor["name"], tensor["dtype"], tensor["shape"]) == ("x", "float32", [1, 3, 1, 1])
    assert base64.b64decode(tensor["data"]) == UNSURE["x"].astype("<f4").tobytes()


def test_an_input_too_large_is_not_sent(server: Server, bundle: Path) -> None:
    server.control("good")
    runtime = opened(bundle, server, most_sent_bytes=100)
    before = server.calls
    assert "bytes" in runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.reason
    assert server.calls == before


def test_the_thresholds_are_those_of_the_variant_that_answers(server: Server, bundle: Path, tmp_path: Path) -> None:
    """Another variant with a threshold that holds one class for the same scores is sure, and does not ask."""
    server.control("good")
    runtime = opened(bundle, server)
    ready = runtime.ready
    calibration = msgspec.structs.replace(CALIBRATION, conformal={"0.9": 0.56})  # of .46, .42 and .17 one is inside
    surer = Runtime.open(extracted(tmp_path / "other", calibration=calibration)).ready
    assert runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.kind is OutcomeKind.CLOUD
    runtime.use(surer, degraded="hot")
    before = server.calls
    outcome = runtime.infer(UNSURE, deadline_ms=60_000.0).outcome
    assert (outcome.kind, outcome.reason, server.calls) == (OutcomeKind.LOCAL_DEGRADED, "hot", before)
    runtime.use(ready)
    assert runtime.infer(UNSURE, deadline_ms=60_000.0).outcome.kind is OutcomeKind.CLOUD


@pytest.mark.parametrize("conformal", [{}, {"0.8": 0.4}])
def test_without_a_threshold_nothing_is_escalated_and_the_answer_says_so(
    server: Server, tmp_path: Path, conformal: dict[str, float]
) -> None:
    calibration = msgspec.structs.replace(CALIBRATION, conformal=conformal)
    runtime = opened(extracted(tmp_path / "b", calibration=calibration), server)
    before = server.calls
    outcome = runtime.infer(UNSURE, deadline_ms=60_000.0).outcome
    assert (outcome.kind, outcome.reason, server.calls) == (OutcomeKind.LOCAL, "confidence unknown", before)
