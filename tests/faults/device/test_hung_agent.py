"""A model that never comes back in the agent's own process: the process ends, and the next one tells and answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.device.agent.client import ask
from edgewise.device.agent.hangs import STATUS
from edgewise.device.audit.reading import read_audit
from edgewise.device.slots import MOST_STARTS, Slots
from edgewise.errors import AgentError
from tests.conformance.fleet.agents import awaited, running
from tests.faults.device.agents import enrol, publish
from tests.faults.device.bundles import GRAPH, IN, content, restated
from tests.faults.trust.fleet import PRODUCT, Fleet, served
from tests.unit.bundle.bundles import archive

TRIAL_S = 8.0
"""Also how long an inference without a deadline may take."""
TOLD_S = 2.0
SOONER = f"from edgewise.device.agent import hangs; hangs.TOLD_S = {TOLD_S}; "
"""A model that hangs keeps a core busy all the time that the agent gives it, and these models take microseconds."""
LARGE = 1e6
"""Above a million in its first value the model compares as many boxes with each other: hours in one operator."""


def hanging(version: str) -> bytes:
    """Return a bundle that is as the good ones, until its input's first value is above `LARGE`."""
    manifest, made = content(version, product=PRODUCT)
    data = made[GRAPH]
    assert isinstance(data, bytes)
    model = onnx.load_model_from_string(data)
    constants: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "none": np.array(0, np.float32),
        "large": np.array(LARGE, np.float32),
        "size": np.array([[0.0, 0.0, 0.5, 1.0]], np.float32),
        "shift": np.array([[1.0, 0.0, 1.0, 0.0]], np.float32),
        "column": np.array([-1, 1], np.int64),
        "batch": np.array([0], np.int64),
        "row": np.array([1, 1, -1], np.int64),
        "most": np.array([1 << 30], np.int64),
        "threshold": np.array([0.5], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.output[0].name = "out"
    for node in model.graph.node:
        node.output[:] = ["out" if each == "y" else each for each in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=0),
            helper.make_node("ReduceMax", ["flat"], ["top"], axes=[0, 1], keepdims=0),
            helper.make_node("Sub", ["top", "large"], ["over"]),
            helper.make_node("Max", ["over", "none"], ["beyond"]),
            helper.make_node("Cast", ["beyond"], ["count"], to=TensorProto.INT64),
            helper.make_node("Add", ["count", "one"], ["boxes_number"]),
            helper.make_node("Range", ["zero", "boxes_number", "one"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["numbers", "column"], ["places"]),
            helper.make_node("Mul", ["places", "shift"], ["moved"]),
            helper.make_node("Add", ["moved", "size"], ["corners"]),
            helper.make_node("Unsqueeze", ["corners", "batch"], ["boxes"]),
            helper.make_node("Reshape", ["numbers", "row"], ["scores"]),
            helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "threshold"], ["kept"]),
            helper.make_node("Cast", ["kept"], ["kept_as_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["kept_as_float"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "none"], ["nothing"]),
            helper.make_node("Add", ["out", "nothing"], ["y"]),
        ]
    )
    model.graph.output[0].name = "y"
    made[GRAPH] = model.SerializeToString()
    return archive(restated(manifest, made), made)


def asked(folder: Path, first: float, *, deadline_ms: float = 30_000.0) -> dict[str, Any] | None:
    """Ask once; None where the agent is gone before an answer."""
    body = json.dumps({"inputs": {"x": [[first, *[0.0] * (IN - 1)]]}, "deadline_ms": deadline_ms})
    try:
        found = ask(folder, "POST", "/v1/infer", body=body.encode(), headers={"Content-Type": "application/json"})
    except AgentError:
        return None
    return dict(json.loads(found.body))


def hung(folder: Path, process: subprocess.Popen[bytes], version: str) -> None:
    """Let the agent's model hang, and see the process end."""
    awaited(folder, lambda each: bool(each.get("running")) and each.get("release") == version)
    right = asked(folder, 1.0)
    assert right is not None
    assert right["outcome"]["kind"] == "local"
    assert asked(folder, 3 * LARGE, deadline_ms=1500.0) is None  # it is in that operator by then
    assert process.wait(30 * TOLD_S) == STATUS


def test_the_agent_ends_itself_and_goes_back_after_three_times(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        folder = enrol(fleet, url, poll_interval_s=1)
        fleet.direct(publish(fleet, "1.0.0"))
        with running(folder):
            awaited(folder, lambda each: each.get("release") == "1.0.0")
        image = publish(fleet, "1.1.0", hanging("1.1.0"))
        fleet.direct(image)
        with running(folder, first=SOONER) as process:
            hung(folder, process, "1.1.0")
    for in_a_row in range(1, MOST_STARTS):
        with running(folder, first=SOONER) as process:
            told = awaited(folder, lambda each: bool(each.get("running")) and each.get("release") == "1.1.0")
            assert told["refusals"]["HungError"] == 1
            assert f"{in_a_row} in a row" in told["last_refusal"]["found"]
            hung(folder, process, "1.1.0")
    with running(folder):
        told = awaited(folder, lambda each: bool(each.get("running")) and each.get("release") == "1.0.0")
        assert told["release"] == "1.0.0"
        assert sorted(told["refusals"]) == ["GivenUpError", "HungError"]
        right = asked(folder, 3 * LARGE)
        assert right is not None
        assert right["outcome"]["kind"] == "local"
    assert Slots(folder).state().given_up == (image.sha256,)
    reasons = [each.reason for each in read_audit(folder / "audit").entries]
    assert sum("the agent ended itself" in each for each in reasons) == MOST_STARTS


def test_a_bundle_that_hangs_in_shadow_is_given_up_at_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        folder = enrol(fleet, url, poll_interval_s=1)
        (folder / "agent.toml").write_text(f"shadow_share = 1.0\n[trial]\ntimeout_s = {TRIAL_S}\n")
        old, new = publish(fleet, "1.0.0"), publish(fleet, "1.1.0", hanging("1.1.0"))
        fleet.direct(old, offered=new, salt="salt", share=1.0, shadow=True)
        with running(folder) as process:
            awaited(folder, lambda each: bool(each.get("running")) and each.get("shadow") == "1.1.0")
            right = asked(folder, 3 * LARGE)
            assert right is not None
            assert (right["outcome"]["kind"], process.poll()) == ("local", None)  # who asked has long been answered
            assert process.wait(6 * TRIAL_S) == STATUS
        with running(folder):
            told = awaited(folder, lambda each: bool(each.get("running")) and "GivenUpError" in each["refusals"])
            assert (told["release"], told["shadow"]) == ("1.0.0", None)
            assert sorted(told["refusals"]) == ["GivenUpError", "HungError"]
            again = asked(folder, 3 * LARGE)
            assert again is not None
            assert again["outcome"]["kind"] == "local"
    assert Slots(folder).state().given_up == (new.sha256,)
