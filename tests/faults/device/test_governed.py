"""The agent with the governor on: the same answers, and a report for each variant that answered."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS
from edgewise.device.agent.settings import Settings
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import sample
from tests.faults.trust.fleet import Fleet, served


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
