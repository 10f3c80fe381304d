"""The agent with the governor on: the same answers, and a report for each variant that answered."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgewise.bundle.write import Source
from edgewise.contracts.capture import MARGIN
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS
from edgewise.device.agent.settings import CaptureOptions, Settings, WorkerOptions
from edgewise.device.audit.reading import read_audit
from edgewise.device.governor.adaptive import AdaptiveRuntime
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import GOLDEN, GRAPH, WEIGHTS, content, restated, sample
from tests.faults.trust.fleet import PRODUCT, Fleet, served
from tests.unit.bundle.bundles import archive


def test_a_governed_model_answers_and_is_reported(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        image = publish(fleet, "1.2.0")
        fleet.direct(image)
        with started(enrol(fleet, url), Settings(governor=True)) as agent:
            assert agent.poll().result == "updated"
            for _ in range(3):
                assert agent._serving.infer({"x": sample()}).outcome.kind == "local"
            assert agent._serving.infer({"x": sample()}, until_s=0.0).outcome.kind == "refused"
            agent._serving.measure()
            (told,) = agent._reports.collector.drain()
    assert (told.release, told.variant) == (image.release.digest, "fp32")
    assert told.histograms[LATENCY_MS].count == 3
    assert (told.counters[REQUESTS], told.outcomes) == (4, {"local": 3, "refused": 1})


def slowed(data: bytes) -> bytes:
    """Return a network that takes some milliseconds longer for the same answers: a product of matrices, times 0."""
    model = onnx.load_from_string(data)
    graph = model.graph
    graph.node[-1].output[0] = "fast"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([600, 600], np.int64), "size"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Expand", ["mean", "size"], ["big"]),
            helper.make_node("MatMul", ["big", "big"], ["product"]),
            helper.make_node("ReduceMean", ["product"], ["whole"], keepdims=0),
            helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
            helper.make_node("Add", ["fast", "nothing"], ["y"]),
        ]
    )
    made: bytes = model.SerializeToString()
    return made


def of_two_variants(version: str, *, slow: str = "fp32") -> bytes:
    """Return a bundle of two variants with the same answers, one of them slow: the chosen one, or the other."""
    manifest, made = content(version, product=PRODUCT)
    first = manifest.variants[0]
    paths = {each: each.replace("fp32", "fast") for each in (GRAPH, WEIGHTS, GOLDEN)}
    copies: dict[str, Source] = {paths[each]: made[each] for each in paths}
    fast = msgspec.structs.replace(
        first,
        name="fast",
        model=paths[GRAPH],
        weights=paths[WEIGHTS],
        golden=msgspec.structs.replace(first.golden, path=paths[GOLDEN]),
    )
    made = {**made, **copies}
    path = GRAPH if slow == "fp32" else paths[GRAPH]
    made[path] = slowed(bytes(made[path]))
    return archive(
        restated(msgspec.structs.replace(manifest, variants=(first, fast)), made), dict(sorted(made.items()))
    )


@pytest.mark.parametrize("worker", [None, WorkerOptions()], ids=["here", "in workers"])
def test_a_variant_that_is_late_gives_way_to_a_faster_one_through_the_agent(
    worker: WorkerOptions | None, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        image = publish(fleet, "1.2.0", of_two_variants("1.2.0"))
        fleet.direct(image)
        folder = enrol(fleet, url)
        settings = Settings(governor=True, capture=CaptureOptions(), worker=worker)
        with started(folder, settings) as agent:
            assert agent.poll().result == "updated"
            assert agent.status().variant == "fp32"
            assert agent._serving._model is not None
            governed = agent._serving._model.runtime
            assert isinstance(governed, AdaptiveRuntime)
            slow, fast = governed.joined.levels
            assert (slow.variant, fast.variant) == ("fp32", "fast")
            assert fast.latency_ms < slow.latency_ms / 4
            tried, most = 0, time.monotonic() + 20
            while agent.status().variant == "fp32" and time.monotonic() < most:
                tried += 1  # half the time that it takes on this machine: it is late however fast that is
                agent._serving.infer({"x": sample()}, until_s=time.monotonic() + slow.latency_ms / 2 / 1000)
            found = agent._serving.infer({"x": sample()}).outcome
            assert (found.kind, found.variant) == ("local_degraded", "fast")
            assert "of their deadline" in found.reason
            assert agent.status().variant == "fast"
            agent._serving.measure()
            assert agent._serving._capturing is not None
            captured = agent._serving._capturing.ended()
            told = {each.variant: each for each in agent._reports.collector.drain() if each.variant != "unknown"}
    assert {each.release for each in told.values()} == {image.release.digest}
    assert sum(told["fp32"].outcomes.values()) == tried
    assert told["fp32"].outcomes.keys() <= {"local", "refused"}
    assert told["fast"].outcomes == {"local_degraded": 1}
    assert told["fast"].histograms[LATENCY_MS].count == 1
    assert told["fast"].counters["governor.switch.late"] == 1
    assert captured is not None
    assert sum(captured.sketches[MARGIN].counts) > 0  # of whichever variant answered when one was looked at
    assert any(each.reason == found.reason for each in read_audit(folder / "audit").entries)
